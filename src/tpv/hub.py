"""Whether the Hugging Face hub can be reached."""


def offline() -> bool:
    """Whether the user asked for no network (HF_HUB_OFFLINE)."""
    from huggingface_hub import is_offline_mode

    return bool(is_offline_mode())


def hub_answers() -> bool:
    """Whether the hub can be reached; asked before loading, because the hub's own client retries for long."""
    from huggingface_hub import constants, get_session, is_offline_mode

    if is_offline_mode():
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=5)
    except Exception:  # the hub's HTTP library, and so its errors, differ between versions
        return False
    return True
