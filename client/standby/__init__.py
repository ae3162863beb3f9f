"""The site's service, back at once when it is killed: ``python -m client.standby --folder SITE``.

Importing torch and what stands on it takes a fresh process most of ten seconds. Here a parent
imports everything once and does nothing else; the service is its child, and where that is killed
(by the kernel for want of memory, by a crash in a library's native code) the next one is forked
and answers within a second or two. Servers that preload their application work alike.

Importing this package sets the environment that the numeric libraries read when THEY are
imported: thread pools made at import would not survive a fork.
"""

import os

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    # NVML tells whether there is a GPU without opening CUDA, which no fork survives.
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
}
os.environ.update(ENVIRONMENT)
