"""A server in a thread of the tests, and libraries for it."""

import asyncio
import threading
import time
from contextlib import contextmanager

import uvicorn
from served import TASKS

import tpv
from tpv.evaluation.tuned import ModelChoice
from tpv.serving.app import build
from tpv.serving.keys import ApiKeys, KeyRecord
from tpv.serving.settings import RequestLimits, ServeSettings

READ, WRITE = "a key that may read", "a key that may write"
RECORDS = {"reader": KeyRecord(key=READ, rights=("read",)), "writer": KeyRecord(key=WRITE, rights=("read", "write"))}


def vector_of(backbone, task, seed=0, tokens=4, init_seed=0):
    """A vector as training would leave it, without the training."""
    init = tpv.SoftPrompt.sample(backbone, tokens, seed=init_seed)
    noise = tpv.SoftPrompt.normal(backbone, tokens, seed=1000 + seed).tensor
    return init.tuned_to(init.tensor + noise, task) - init


def fill(folder, backbone, tokens=4):
    """A library with a vector for each of four tasks."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, task in enumerate(TASKS):
        vector_of(backbone, task, seed, tokens).save(folder / f"{task.removeprefix('mini/')}.safetensors")
    return folder


class Running:
    """A server that runs.

    Attributes:
        client: of its writer; `as_reader` and `nobody` are other clients.
    """

    def __init__(self, app, server, thread, keyed):
        self.app, self.server, self.thread = app, server, thread
        self.port = server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.client = tpv.Client(self.url, WRITE if keyed else "", patience=0)
        self.as_reader, self.nobody = tpv.Client(self.url, READ, patience=0), tpv.Client(self.url, "", patience=0)

    @property
    def engine(self):
        return self.app.state.service.engine

    @property
    def catalog(self):
        return self.app.state.catalog

    def counts(self):
        """What /metrics says, by name and labels."""
        lines = self.client._sent("GET", "/metrics").text.splitlines()
        return {key: float(value) for key, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}

    def stop(self):
        self.server.should_exit = True
        self.thread.join(30)
        assert not self.thread.is_alive()


@contextmanager
def serving(backbone, library, *, records=RECORDS, limits=None, **more):
    """A server on a free port, with the keys READ and WRITE."""
    settings = ServeSettings(
        model=ModelChoice(name="mini"), library=str(library), port=0, limits=RequestLimits(**(limits or {})), **more
    )
    app = build(settings, backbone, ApiKeys(records))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", timeout_graceful_shutdown=10))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.005)
    running = Running(app, server, thread, bool(records))
    try:
        yield running
    finally:
        if thread.is_alive():
            running.stop()
        for client in (running.client, running.as_reader, running.nobody):
            client.close()
