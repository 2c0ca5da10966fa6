"""Settings that Ray reads from the environment when it is imported, so this has to come first."""

import os
import secrets


def prepare_ray(address: str | None) -> None:
    """Set what Ray and Tune are to do; call before anything imports Ray.

    A cluster of our own (`address` None) demands a token that only this run's processes know. An existing cluster has
    its own rules, which the user's environment states (RAY_AUTH_MODE, RAY_AUTH_TOKEN_PATH).
    """
    if address is None:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")  # a cell without a GPU sees none
    # Tune prints and logs for itself unless told otherwise; the ledger and our own progress do that here.
    os.environ.update(TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1", RAY_AIR_NEW_OUTPUT="0", RAY_CHDIR_TO_TRIAL_DIR="0")
    # Nothing ever reads Tune's snapshots, so write as few as possible.
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "86400")
    # Our searcher alone decides how many trials there are at once; Tune would start the first workers one by one.
    os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", "4096")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
