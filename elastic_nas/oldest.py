"""The oldest releases of other programs that what this package writes is promised to run with.

Everything that names such a release, to people or to installers, takes it from here: manifests,
portable kits, documents and the check that runs them.
"""

ONNXRUNTIME = "1.16.3"
"""Of ONNX Runtime: it loads and runs exported files and the models of portable kits.

It decides the version of ONNX's intermediate representation that files are written in.
"""
