"""The family inside other libraries, one module for each: `fastsig.interop.torch`, `jax`, `xgboost` and so on.

A module needs its library and is imported only when asked for; the extra of the same name brings the library.
"""
