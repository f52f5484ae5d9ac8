"""The family inside other libraries: `fastsig.interop.torch`, `jax`, `xgboost`, `lightgbm`, `sklearn`, `dask`.

A module needs its library and is imported only when asked for; the extra of the same name brings the library.
"""
