"""Numba, narrowed to what loops need: a target of its own, so that a first result doesn't wait for the rest of Numba.

Numba's target for the processor learns all of NumPy and Python before it compiles anything, runs each function through two
dozen passes and makes machine code of each. Loops are made of numbers and of our own intrinsics, and only the last module of
all of them is wanted, as IR. Seconds of processor time to the float32 sigmoid, nothing cached, on a shared machine: with Numba
as it is 4.6, without what it learns first 4.1, also without machine code of each function and the passes for it 1.8; and where
kernels are written out (`lanes.Written`) rather than compiled part by part, a fifth less again.

Nothing here is seen by the user's own Numba code: contexts, dispatchers and libraries are this target's. Where a later Numba
doesn't fit, `compiler` takes it as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

from llvmlite import ir
from numba.core import codegen, cpu, descriptors, registry, typed_passes, untyped_passes
from numba.core.compiler import CompilerBase
from numba.core.compiler_machinery import PassManager
from numba.core.dispatcher import _FunctionCompiler
from numba.core.target_extension import CPU, dispatcher_registry, jit_registry, target_override, target_registry
from numba.core.typing.context import BaseContext

NAME = "fastsig"
RAISES = "fastsig_raises"  # what a loop that can raise refers to; there is no such function, so that it is refused
PASSES = (
    untyped_passes.TranslateByteCode,
    untyped_passes.FixupArgs,
    untyped_passes.IRProcessing,
    untyped_passes.RewriteSemanticConstants,  # these three take out the branches that a constant of the loop's decides
    untyped_passes.DeadBranchPrune,
    untyped_passes.GenericRewrites,
    untyped_passes.ReconstructSSA,
    typed_passes.NopythonTypeInference,
    typed_passes.PreLowerStripPhis,
    typed_passes.IRLegalization,
    typed_passes.AnnotateTypes,
    typed_passes.NativeLowering,
    typed_passes.NoPythonBackend,
)


class Loops(CPU):
    """What Numba knows the target by; all that it has for any processor is for this one as well."""


class Library(codegen.JITCodeLibrary):
    """A function's IR, as it was made: neither optimised nor made machine code of."""

    def _optimize_functions(self, module: Any) -> None:
        module.data_layout = self._codegen._data_layout

    def finalize(self) -> None:
        self._finalized = True

    def whole(self) -> Any:
        """The module of this function with all that it calls."""
        libraries = [self]
        for library in libraries:
            libraries += [called for called in dict.fromkeys(library._linking_libraries) if called not in libraries]
        for library in libraries[1:]:
            self._final_module.link_in(library._final_module, preserve=True)
        return self._final_module


class Codegen(codegen.JITCPUCodegen):
    _library_class = Library


class Context(cpu.CPUContext):
    """How things are written in LLVM: numbers, tuples of them, ranges, and what is registered besides, such as our own."""

    refreshing = False

    def init(self) -> None:
        self.is32bit = False
        self._internal_codegen = Codegen(f"{NAME}.loops")

    def refresh(self) -> None:
        """Take in what is newly registered. Each of Numba's overloads that is met asks for it again."""
        if not self.refreshing:
            Context.refreshing = True
            try:
                with target_override(NAME):
                    super().refresh()
            finally:
                Context.refreshing = False

    def load_additional_registries(self) -> None:
        from numba.core import optional  # noqa: F401
        from numba.cpython import builtins, iterators, numbers, rangeobj, tupleobj  # noqa: F401

    def create_cfunc_wrapper(self, library: Any, fndesc: Any, env: Any, call_helper: Any) -> None:
        """The function by C's conventions. Numba's own calls the interpreter where an exception was raised."""
        module = self.create_module("wrapper")
        callee = ir.Function(module, self.call_conv.get_function_type(fndesc.restype, fndesc.argtypes), fndesc.llvm_func_name)
        type = ir.FunctionType(self.get_value_type(fndesc.restype), [self.get_value_type(a) for a in fndesc.argtypes])
        wrapper = ir.Function(module, type, fndesc.llvm_cfunc_wrapper_name)
        builder = ir.IRBuilder(wrapper.append_basic_block("entry"))
        status, result = self.call_conv.call_function(builder, callee, fndesc.restype, fndesc.argtypes, wrapper.args)
        with builder.if_then(status.is_error, likely=False):
            builder.call(ir.Function(module, ir.FunctionType(ir.VoidType(), []), RAISES), [])
        builder.ret(result)
        library.add_ir_module(module)

    def post_lowering(self, module: Any, library: Any) -> None:
        """Without Numba's runtime, which counts references."""

    def get_executable(self, library: Any, fndesc: Any, env: Any) -> object:
        """What stands for the function among its callers; nobody calls it from Python."""
        return object()


class Target(descriptors.TargetDescriptor):
    options = cpu.CPUTargetOptions

    @cached_property
    def typing_context(self) -> Any:
        return BaseContext()

    @cached_property
    def target_context(self) -> Any:
        return Context(self.typing_context, NAME)


class Compiler(CompilerBase):
    def define_pipelines(self) -> list[Any]:
        passes = PassManager(NAME)
        for each in PASSES:
            passes.add_pass(each, each.__name__)
        passes.finalize()
        return [passes]


class Dispatcher(registry.CPUDispatcher):
    """A function for other functions of this target to call."""

    targetdescr = Target(NAME)

    def add_overload(self, result: Any) -> None:
        self.overloads[tuple(result.signature.args)] = result


def njit(signature: Any = None, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Numba's decorator, for this target."""

    def decorate(function: Callable[..., Any]) -> Any:
        settings = {"nopython": True, "boundscheck": None, **options}
        made = Dispatcher(function, targetoptions=settings, pipeline_class=Compiler)
        if signature is not None:
            made.compile(signature)
            made.disable_compile()
        return made

    return decorate


class Entry(_FunctionCompiler):
    """Compiles a function that C calls."""

    def _customize_flags(self, flags: Any) -> Any:
        flags.no_cpython_wrapper = flags.no_compile = True
        flags.no_cfunc_wrapper = flags.enable_pyobject = False
        return flags


def compiled(signature: Any, function: Callable[..., Any]) -> tuple[str, Any]:
    """A function's symbol and module, with all that it calls."""
    options = {"nopython": True, "error_model": "numpy", "boundscheck": None}
    result = Entry(function, Dispatcher.targetdescr, options, {}, Compiler).compile(signature.args, signature.return_type)
    return result.fndesc.llvm_cfunc_wrapper_name, result.library.whole()


target_registry[NAME] = Loops
dispatcher_registry[Loops] = Dispatcher
jit_registry[Loops] = njit
