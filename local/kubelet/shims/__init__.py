"""A folder for the Python path of trials' programs; see `sitecustomize.py`. Nobody imports it."""
