"""Start a server on a folder of vectors, ask it, add a prompt by an expression. Needs `pip install "tpv[serve]"`."""

import os
import subprocess
import sys
import time

import tpv

backbone = tpv.load_backbone("mini")
init = tpv.SoftPrompt.sample(backbone, num_tokens=8, seed=0)
task = tpv.load_task("mini/sst2")
tuned = tpv.fit(backbone, task, init, tpv.Recipe(steps=30, batch_size=16, select="last"))
(tuned - init).save("served/sst2.safetensors")

port, key = os.environ.get("PORT", "8765"), "a-key-for-this-example"
command = [sys.executable, "-m", "tpv.cli", "serve", "--model", "mini", "--library", "served", "--port", port]
server = subprocess.Popen(command, env=os.environ | {"TPV_API_KEY": key})
try:
    client = tpv.Client(f"http://127.0.0.1:{port}", key=key)
    for _ in range(120):
        try:
            client.prompts()
            break
        except tpv.TpvError:  # not ready yet
            time.sleep(0.5)
    print(client.predict("sst2", ["sentence: a warm film."]).to_pylist())
    client.put("half", "init:0 + 0.5*sst2", task="mini/sst2")
    print(client.predict("half", ["sentence: a warm film."]).to_pylist())
finally:
    server.terminate()
    server.wait()
