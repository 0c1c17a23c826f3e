"""HTTP routes of the KFP v2beta1 API, one module a resource.

A handler reads the request, calls the store or the engine, and renders; rules live below.
"""
