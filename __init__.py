"""kubeloop closes the loop from raw data to a served model on Kubeflow.

The same compiled pipelines, custom resources and official SDK calls run on a laptop, on the
embedded control plane of `kubeloop.local`, and on a cluster. Import from the packages below this
one; this module holds the version and nothing that takes time to load.
"""

from importlib.metadata import version

__version__ = version("kubeloop")
__all__ = ["__version__"]
