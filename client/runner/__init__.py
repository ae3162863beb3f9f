"""The site's own executor of Flower messages: warm, forking, and deaf to pushed code.

A stock SuperNode starts a new ``flwr-clientapp`` for every message, which unpacks the bundle
that the coordinator pushed, imports it and runs it. Here a process that hospital IT installed
takes that place: it imported the site's own `client.app` once, forks a fresh child for every
message and never looks into the bundle.

Importing this package sets the environment that Flower and the numeric libraries read when THEY
are imported, so that it holds however a site starts its processes.
"""

import os

ENVIRONMENT = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.01",  # the runner keeps a pace of its own on top
    # NVML tells whether there is a GPU without opening CUDA, which no fork survives.
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
    # Thread pools made at import would not survive a fork; each child sets its own number.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}
os.environ.update(ENVIRONMENT)
