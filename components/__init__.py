"""KFP v2 components: one file each, typed inputs and outputs, bodies that call the library.

`kubeloop.pipelines` composes them; they can be used in any pipeline. They reach the cluster through
the official clients only.
"""
