"""Instructions in LLVM: what each word of a kernel, and of the loops round it, becomes. The only LLVM in the package.

A kernel is compiled for `Lanes`, a vector of several registers: one pass of straight code then holds several independent
chains, which is what keeps the multipliers busy (sigmoid, ns an element on Granite Rapids with 4 and 8 registers: float32 0.33
and 0.42, float64 0.94 and 1.00, with 2 as with 4; on Zen 5 an earlier kernel took 0.27 with one and 0.20 with eight).
"""

from __future__ import annotations

import operator
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.datamodel.models import OpaqueModel, PrimitiveModel
from numba.core.imputils import lower_constant
from numba.core.typing.templates import AbstractTemplate, AttributeTemplate, infer_global
from numba.core.typing.typeof import typeof_impl
from numba.extending import infer_getattr, intrinsic, lower_builtin, lower_getattr_generic, register_model

from fastsig import instructions
from fastsig.constants import FLOAT32, FLOAT64, Format, Range

I1, I8, I16, I32, I64 = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
FLOAT = {"float16": ir.HalfType(), "float32": ir.FloatType(), "float64": ir.DoubleType()}
STORED = {**FLOAT, "bfloat16": I16}
INTEGER = {"float16": I16, "bfloat16": I16, "float32": I32, "float64": I64}
SIZE = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}
COMPUTED_IN = {"float16": FLOAT32, "bfloat16": FLOAT32, "float32": FLOAT32, "float64": FLOAT64}
FORMATS = {"float32": FLOAT32, "float64": FLOAT64}
CACHE_LINE = 64


# --- the types of a kernel's values ------------------------------------------------------------------------------------


class Lanes(types.Type):
    """A vector of `count` floats (or, with `types.boolean`, of conditions)."""

    def __init__(self, dtype: types.Type, count: int) -> None:
        self.dtype, self.count = dtype, count
        super().__init__(f"Lanes({dtype}, {count})")


@register_model(Lanes)
class LanesModel(PrimitiveModel):
    def __init__(self, manager: Any, lanes: Lanes) -> None:
        super().__init__(manager, lanes, ir.VectorType(element(lanes), lanes.count))


class FormatType(types.Type):
    """The type of a `Format` in a kernel. Its numbers are constants."""

    def __init__(self, format: Format) -> None:
        self.format = format
        super().__init__(f"Format({format.name}, {format.tails})")


@register_model(FormatType)
class FormatModel(PrimitiveModel):
    def __init__(self, manager: Any, type: FormatType) -> None:
        super().__init__(manager, type, I1)


class Polynomial(types.Type):
    def __init__(self, coefficients: tuple[float, ...]) -> None:
        self.coefficients = coefficients
        super().__init__(f"Polynomial({', '.join(c.hex() for c in coefficients)})")


@dataclass(frozen=True)
class Mathematics:
    """A kernel that is to be written out in a loop, see `apply`."""

    function: Callable[..., Any]


class MathematicsType(types.Type):
    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        super().__init__(f"Mathematics({function.__qualname__})")

    @property
    def key(self) -> Any:
        return self.function


@dataclass(frozen=True)
class Shape:
    """What a loop reads and writes: `inputs` and `outputs` arrays, `count` elements at a time, stored as `storage`."""

    storage: str
    count: int
    inputs: int
    outputs: int
    half: bool  # whether the machine converts float16 itself
    ordinary: Range | None  # the first inputs for which there is a shorter way
    weights: int = 0  # how many of the inputs, those before the scalars, are arrays in the format that is computed in
    scalars: int = 0  # how many, the last ones, are one number each, in that format
    summed: bool = False  # whether the first output is kept in that format, since it is only to be summed

    @property
    def format(self) -> Format:
        return COMPUTED_IN[self.storage]

    def of_input(self, k: int) -> Shape:
        """How array k is stored."""
        return self if k < self.inputs - self.scalars - self.weights else replace(self, storage=self.format.name)

    def of_output(self, k: int) -> Shape:
        """How output k is stored."""
        return replace(self, storage=self.format.name) if self.summed and k == 0 else self


class ShapeType(types.Type):
    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        super().__init__(
            f"Shape({shape.storage}, {shape.count}, {shape.inputs}, {shape.outputs}, {shape.half}, {shape.ordinary}, "
            f"{shape.weights}, {shape.scalars}, {shape.summed})"
        )

    @property
    def addresses(self) -> types.Type:
        return types.UniTuple(types.intp, self.shape.inputs + self.shape.outputs)

    @property
    def read(self) -> types.Type:
        return types.UniTuple(Lanes(getattr(types, self.shape.format.name), self.shape.count), self.shape.inputs)


for constant_type in (Polynomial, ShapeType, MathematicsType):
    register_model(constant_type)(OpaqueModel)


@typeof_impl.register(Format)
def typeof_format(value: Format, context: Any) -> FormatType:
    return FormatType(value)


@typeof_impl.register(Shape)
def typeof_shape(value: Shape, context: Any) -> ShapeType:
    return ShapeType(value)


@typeof_impl.register(Mathematics)
def typeof_mathematics(value: Mathematics, context: Any) -> MathematicsType:
    return MathematicsType(value.function)


@lower_constant(FormatType)
def lower_format(context: Any, builder: ir.IRBuilder, type: FormatType, value: Format) -> ir.Value:
    return I1(value.tails)


@lower_constant(ShapeType)
@lower_constant(MathematicsType)
def lower_compile_time(context: Any, builder: ir.IRBuilder, type: types.Type, value: Any) -> ir.Value:
    return context.get_dummy_value()


@infer_getattr
class FormatAttributes(AttributeTemplate):
    key = FormatType

    def generic_resolve(self, type: FormatType, name: str) -> types.Type:
        value = constant(type.format, name)
        if isinstance(value, tuple):
            return Polynomial(value)
        return types.boolean if isinstance(value, bool) else getattr(types, type.format.name)


@lower_getattr_generic(FormatType)
def lower_format_attribute(context: Any, builder: ir.IRBuilder, type: FormatType, value: Any, name: str) -> ir.Value:
    number = constant(type.format, name)
    if isinstance(number, tuple):
        return context.get_dummy_value()
    if name == "tails":
        return value
    return I1(number) if isinstance(number, bool) else FLOAT[type.format.name](number)


NUMBERS = {"zero": 0.0, "half": 0.5, "one": 1.0, "four": 4.0, "infinity": float("inf"), "nan": float("nan")}


def constant(format: Format, name: str) -> Any:
    return NUMBERS[name] if name in NUMBERS else getattr(format, name)


def element(type: types.Type) -> ir.Type:
    """The LLVM type of one element."""
    dtype = type.dtype if isinstance(type, Lanes) else type
    return I1 if dtype == types.boolean else FLOAT[dtype.name]


def like(type: types.Type, scalar: ir.Type) -> ir.Type:
    """As many of `scalar` as `type` has elements."""
    return ir.VectorType(scalar, type.count) if isinstance(type, Lanes) else scalar


def splat(type: types.Type, value: ir.Constant) -> ir.Constant:
    return ir.Constant(like(type, value.type), [value] * type.count) if isinstance(type, Lanes) else value


def widen(builder: ir.IRBuilder, value: ir.Value, have: types.Type, want: types.Type) -> ir.Value:
    """One number in every lane, where the other operand has lanes."""
    if isinstance(have, Lanes) or not isinstance(want, Lanes):
        return value
    if isinstance(value, ir.Constant):
        return splat(want, value)
    vector = like(want, value.type)
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), value, I32(0))
    return builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), ir.Constant(ir.VectorType(I32, want.count), None))


def result(args: tuple[types.Type, ...]) -> types.Type | None:
    """The type of an arithmetic result: that of the lanes among the operands, or of the numbers."""
    if not args or not all(isinstance(a, Lanes) or a in (types.float32, types.float64) for a in args):
        return None
    return next((a for a in args if isinstance(a, Lanes)), args[0])


def mask(args: tuple[types.Type, ...]) -> types.Type | None:
    """The type of a condition on such operands."""
    widest = result(args)
    return Lanes(types.boolean, widest.count) if isinstance(widest, Lanes) else widest and types.boolean


EMITTED: dict[Any, tuple[Callable[..., types.Type | None], Callable[..., ir.Value]]] = {}  # what `define` was told


def define(
    key: Any, type_of: Callable[..., types.Type | None], patterns: tuple[Any, ...] = ((types.VarArg(types.Any),),)
) -> Any:
    """Decorate the code of `key`, an instruction or an operator; it gets a builder, the operands' common type, the operands.

    An operator is defined where there are lanes among its operands: those of plain numbers stay Numba's own.
    """

    def decorate(emit: Callable[..., ir.Value]) -> Callable[..., ir.Value]:
        EMITTED[key] = type_of, emit

        class Template(AbstractTemplate):
            def generic(self, args: Any, kws: Any) -> Any:
                ours = key in instructions.INSTRUCTIONS.values() or any(isinstance(a, Lanes) for a in args)
                returns = type_of(args) if ours else None
                return None if returns is None else returns(*args)

        Template.key = key
        infer_global(key)(Template)

        def lower(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
            return emitted(emit, builder, signature.args, values)

        for pattern in patterns:
            lower_builtin(key, *pattern)(lower)
        return emit

    return decorate


def emitted(emit: Callable[..., ir.Value], builder: ir.IRBuilder, args: Sequence[types.Type], values: Any) -> ir.Value:
    """An instruction's code for operands of these types."""
    widest = result(tuple(a for a in args if result((a,))))
    operands = [
        a if isinstance(a, Polynomial) else widen(builder, v, a, widest) if result((a,)) else v
        for a, v in zip(args, values, strict=True)
    ]
    return emit(builder, widest, *operands)


PAIRS = ((Lanes, Lanes), (Lanes, types.Float), (types.Float, Lanes))
define(operator.add, result, PAIRS)(lambda b, type, x, y: b.fadd(x, y))
define(operator.sub, result, PAIRS)(lambda b, type, x, y: b.fsub(x, y))
define(operator.mul, result, PAIRS)(lambda b, type, x, y: b.fmul(x, y))
define(operator.truediv, result, PAIRS)(lambda b, type, x, y: b.fdiv(x, y))
define(operator.neg, result, ((Lanes,),))(lambda b, type, x: b.fneg(x))
define(operator.lt, mask, PAIRS)(lambda b, type, x, y: b.fcmp_ordered("<", x, y))
define(operator.eq, mask, PAIRS)(lambda b, type, x, y: b.fcmp_ordered("==", x, y))
define(operator.le, mask, PAIRS)(lambda b, type, x, y: b.fcmp_ordered("<=", x, y))


# --- kernels, written out ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Written:
    """A value of a kernel that is being written out: Python runs the kernel, and each operation on such values adds its code.

    What depends on the format alone is decided then. Numba would take 0.6 s for the same: it compiles each of the kernel's
    parts, and each of them anew for every width of lanes.
    """

    builder: ir.IRBuilder
    type: types.Type
    value: ir.Value

    def write(self, key: Any, operands: tuple[Any, ...]) -> Written:
        """The result of an instruction or an operator."""
        type_of, emit = EMITTED[key]
        args = tuple(o.type if isinstance(o, Written) else o for o in operands)
        returns = type_of(args)
        if returns is None:
            raise TypeError(f"{key.__name__} isn't defined for {', '.join(map(str, args))}")
        values = [o.value if isinstance(o, Written) else None for o in operands]
        return Written(self.builder, returns, emitted(emit, self.builder, args, values))

    def __bool__(self) -> bool:
        raise TypeError("a kernel can't branch on its values: use select")

    def __add__(self, y: Any) -> Written:
        return self.write(operator.add, (self, y))

    def __sub__(self, y: Any) -> Written:
        return self.write(operator.sub, (self, y))

    def __mul__(self, y: Any) -> Written:
        return self.write(operator.mul, (self, y))

    def __truediv__(self, y: Any) -> Written:
        return self.write(operator.truediv, (self, y))

    def __neg__(self) -> Written:
        return self.write(operator.neg, (self,))

    def __lt__(self, y: Any) -> Written:
        return self.write(operator.lt, (self, y))

    def __le__(self, y: Any) -> Written:
        return self.write(operator.le, (self, y))

    def __eq__(self, y: Any) -> Any:
        return self.write(operator.eq, (self, y))


@dataclass(frozen=True)
class WrittenFormat:
    """Its format: a flag is Python's own, a number a constant."""

    builder: ir.IRBuilder
    format: Format

    def __getattr__(self, name: str) -> Any:
        number, type = constant(self.format, name), getattr(types, self.format.name)
        if isinstance(number, bool):
            return number
        return Polynomial(number) if isinstance(number, tuple) else Written(self.builder, type, element(type)(number))


def write_out(function: Any, builder: ir.IRBuilder, lanes: Sequence[types.Type], values: Any, format: Format) -> list[Written]:
    """The kernel's outputs, of the inputs' type."""
    inputs = [Written(builder, *each) for each in zip(lanes, values, strict=True)]
    outputs = function(*inputs, WrittenFormat(builder, format))
    return list(outputs) if isinstance(outputs, tuple) else [outputs]


@cache
def output_type(function: Any, lanes: tuple[types.Type, ...], format: Format) -> types.Type:
    """What the kernel gives: tried, on paper that is thrown away."""
    arguments = [like(type, element(type)) for type in lanes]
    paper = ir.Function(ir.Module(), ir.FunctionType(ir.VoidType(), arguments), "paper")
    outputs = write_out(function, ir.IRBuilder(paper.append_basic_block()), lanes, paper.args, format)
    return lanes[0] if len(outputs) == 1 else types.UniTuple(lanes[0], len(outputs))


# --- the instructions --------------------------------------------------------------------------------------------------


def name_of(type: types.Type) -> str:
    return str((type.dtype if isinstance(type, Lanes) else type).name)


def integer(type: types.Type, value: int) -> ir.Constant:
    """An integer as wide as the floats of `type`, in every lane."""
    return splat(type, INTEGER[name_of(type)](value))


def digits(type: types.Type) -> int:
    return FORMATS[name_of(type)].digits


def as_bits(builder: ir.IRBuilder, type: types.Type, x: ir.Value) -> ir.Value:
    return builder.bitcast(x, like(type, INTEGER[name_of(type)]))


def call(builder: ir.IRBuilder, name: str, returns: ir.Type, *values: ir.Value) -> ir.Value:
    """A call of LLVM's own function `name`."""
    type = ir.FunctionType(returns, [v.type for v in values])
    return builder.call(cgutils.get_or_insert_function(builder.module, type, name), values)


def suffix(type: ir.Type) -> str:
    """How LLVM names its functions for a type: v16f32."""
    if isinstance(type, ir.VectorType):
        return f"v{type.count}{suffix(type.element)}"
    return f"i{type.width}" if isinstance(type, ir.IntType) else {"half": "f16", "float": "f32", "double": "f64"}[str(type)]


@define(instructions.fma, result)
def fma(builder: ir.IRBuilder, type: types.Type, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
    return call(builder, f"llvm.fma.{suffix(a.type)}", a.type, a, b, c)


@define(instructions.root, result)
def root(builder: ir.IRBuilder, type: types.Type, x: ir.Value) -> ir.Value:
    """LLVM's own, an instruction of every processor; Numba's math.sqrt is a call of libm."""
    return call(builder, f"llvm.sqrt.{suffix(x.type)}", x.type, x)


def selected(args: tuple[types.Type, ...]) -> types.Type | None:
    """The type of a choice: lanes if any operand has them, the condition's included."""
    condition, *values = args
    number = result(tuple(values))
    return Lanes(number, condition.count) if isinstance(condition, Lanes) and isinstance(number, types.Float) else number


@define(instructions.select, selected)
def select(builder: ir.IRBuilder, type: types.Type, condition: ir.Value, yes: ir.Value, no: ir.Value) -> ir.Value:
    return builder.select(condition, yes, no)


@define(instructions.magnitude, result)
def magnitude(builder: ir.IRBuilder, type: types.Type, x: ir.Value) -> ir.Value:
    return call(builder, f"llvm.fabs.{suffix(x.type)}", x.type, x)


@define(instructions.power_of_two, result)
def power_of_two(builder: ir.IRBuilder, type: types.Type, v: ir.Value) -> ir.Value:
    return builder.bitcast(builder.shl(as_bits(builder, type, v), integer(type, digits(type))), v.type)


@define(instructions.subtract_bits, result)
def subtract_bits(builder: ir.IRBuilder, type: types.Type, a: ir.Value, b: ir.Value) -> ir.Value:
    return builder.bitcast(builder.sub(as_bits(builder, type, a), as_bits(builder, type, b)), a.type)


@define(instructions.with_sign, result)
def with_sign(builder: ir.IRBuilder, type: types.Type, y: ir.Value, x: ir.Value) -> ir.Value:
    return call(builder, f"llvm.copysign.{suffix(x.type)}", x.type, y, x)


@define(instructions.halved, result)
def halved(builder: ir.IRBuilder, type: types.Type, x: ir.Value) -> ir.Value:
    return builder.bitcast(builder.lshr(as_bits(builder, type, x), integer(type, 1)), x.type)


@define(instructions.unpacked, result)
def unpacked(builder: ir.IRBuilder, type: types.Type, x: ir.Value) -> ir.Value:
    """The bits of |x| are the low ones of 2^digits + the integer."""
    base = pattern(2.0 ** digits(type), name_of(type))
    sum = builder.or_(as_bits(builder, type, magnitude(builder, type, x)), integer(type, base))
    whole = builder.fsub(builder.bitcast(sum, x.type), splat(type, FLOAT[name_of(type)](2.0 ** digits(type))))
    return with_sign(builder, type, whole, x)


def apart(builder: ir.IRBuilder, type: types.Type, a: ir.Value, b: ir.Value) -> ir.Value:
    """k in the place of an exponent: the difference of the bits is nearly that of the logarithms, and is rounded."""
    difference = builder.sub(as_bits(builder, type, a), as_bits(builder, type, b))
    rounded = builder.add(difference, integer(type, 1 << (digits(type) - 1)))
    return builder.and_(rounded, integer(type, -1 << digits(type)))


@define(instructions.binades, result)
def binades(builder: ir.IRBuilder, type: types.Type, a: ir.Value, b: ir.Value) -> ir.Value:
    """To a float by way of the last digits of a large one; made positive first, for AVX2 has no signed shift of 64 bits."""
    name = name_of(type)
    positive = 3 << (8 * SIZE[name] - digits(type) - 3)
    shifted = builder.add(apart(builder, type, a, b), integer(type, positive << digits(type)))
    small = builder.lshr(shifted, integer(type, digits(type)))
    large = builder.or_(small, integer(type, pattern(1.5 * 2.0 ** digits(type), name)))
    return builder.fsub(builder.bitcast(large, a.type), splat(type, FLOAT[name](1.5 * 2.0 ** digits(type) + positive)))


@define(instructions.lowered, result)
def lowered(builder: ir.IRBuilder, type: types.Type, a: ir.Value, b: ir.Value) -> ir.Value:
    return builder.bitcast(builder.sub(as_bits(builder, type, a), apart(builder, type, a, b)), a.type)


@define(instructions.polynomial, lambda args: result(args[:1]))
def polynomial(builder: ir.IRBuilder, type: types.Type, x: ir.Value, square: ir.Value, terms: Polynomial) -> ir.Value:
    """By Estrin's scheme, in pairs, then pairs of pairs: half of Horner's latency for at most two multiplications more."""
    values = [splat(type, FLOAT[name_of(type)](c)) for c in terms.coefficients]
    power = x
    while len(values) > 1:
        pairs = [values[k : k + 2] for k in range(0, len(values), 2)]
        values = [fma(builder, type, power, *reversed(pair)) if len(pair) == 2 else pair[0] for pair in pairs]
        power = square if power is x else builder.fmul(power, power)
    return values[0]


# --- memory ------------------------------------------------------------------------------------------------------------
# Addresses are integers, as NumPy hands them over; a pointer plus an index (never a pointer made of a sum) keeps LLVM's
# knowledge of what is behind it.


def place(builder: ir.IRBuilder, address: ir.Value, index: ir.Value, shape: Shape) -> ir.Value:
    """The pointer to `shape.count` elements from `address[index]` on."""
    number = STORED[shape.storage]
    pointer = builder.gep(builder.inttoptr(address, number.as_pointer()), [index])
    return builder.bitcast(pointer, ir.VectorType(number, shape.count).as_pointer())


def first(builder: ir.IRBuilder, count: ir.Value, shape: Shape) -> ir.Value:
    """The condition that holds in the first `count` lanes."""
    counts = widen(builder, builder.trunc(count, I32), types.int32, Lanes(types.float32, shape.count))
    return builder.icmp_signed("<", ir.Constant(counts.type, [I32(k) for k in range(shape.count)]), counts)


def outputs(builder: ir.IRBuilder, type: types.Type, value: ir.Value) -> list[ir.Value]:
    """What a kernel returned, one value or a tuple of them."""
    return cgutils.unpack_tuple(builder, value) if isinstance(type, types.BaseTuple) else [value]


def results(builder: ir.IRBuilder, s: Shape, p: ir.Value, type: types.Type, value: ir.Value) -> Iterator[tuple[Any, ...]]:
    """The address of each output, what is to be written there, and how; what a kernel returns beyond them isn't wanted."""
    addresses = cgutils.unpack_tuple(builder, p)[s.inputs :]
    for k, (address, y) in enumerate(zip(addresses, outputs(builder, type, value), strict=False)):
        yield address, narrowed(builder, y, s.of_output(k)), s.of_output(k)


def arrays(builder: ir.IRBuilder, s: Shape, p: ir.Value) -> Iterator[tuple[ir.Value, Shape]]:
    """The address of each array that is read, and how it is stored."""
    addresses = cgutils.unpack_tuple(builder, p)[: s.inputs - s.scalars]
    return ((address, s.of_input(k)) for k, address in enumerate(addresses))


def numbers(builder: ir.IRBuilder, s: Shape, p: ir.Value) -> list[ir.Value]:
    """The inputs that are one number each, in every lane."""
    number, vector = FLOAT[s.format.name], Lanes(getattr(types, s.format.name), s.count)
    addresses = cgutils.unpack_tuple(builder, p)[s.inputs - s.scalars : s.inputs]
    loaded = (builder.load(builder.inttoptr(address, number.as_pointer())) for address in addresses)
    return [widen(builder, value, vector.dtype, vector) for value in loaded]


@intrinsic
def read(typing: Any, shape: Any, p: Any, index: Any) -> Any:
    """The elements from `index` on of each input."""
    s = shape.shape

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        values = []
        for address, how in arrays(builder, s, args[1]):
            stored = builder.load(place(builder, address, args[2], how), align=SIZE[how.storage])
            values.append(widened(builder, stored, how))
        return context.make_tuple(builder, shape.read, [*values, *numbers(builder, s, args[1])])

    return shape.read(shape, p, types.intp), emit


@intrinsic
def read_first(typing: Any, shape: Any, p: Any, index: Any, count: Any) -> Any:
    """The same for the first `count` lanes; the others are 0, and nothing is read for them."""
    s = shape.shape

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        mask, values = first(builder, args[3], s), []
        for address, how in arrays(builder, s, args[1]):
            vector = ir.VectorType(STORED[how.storage], s.count)
            operands = place(builder, address, args[2], how), I32(SIZE[how.storage]), mask, ir.Constant(vector, None)
            stored = call(builder, f"llvm.masked.load.{suffix(vector)}.p0", vector, *operands)
            values.append(widened(builder, stored, how))
        return context.make_tuple(builder, shape.read, [*values, *numbers(builder, s, args[1])])

    return shape.read(shape, p, types.intp, types.intp), emit


@intrinsic
def write(typing: Any, shape: Any, p: Any, index: Any, y: Any) -> Any:
    """Write the outputs' elements from `index` on."""
    s = shape.shape

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        for address, stored, how in results(builder, s, args[1], y, args[3]):
            builder.store(stored, place(builder, address, args[2], how), align=SIZE[how.storage])
        return context.get_dummy_value()

    return types.void(shape, p, types.intp, y), emit


@intrinsic
def stream(typing: Any, shape: Any, p: Any, index: Any, y: Any) -> Any:
    """The same past the caches, in whole lines: every output's element `index` must begin one."""
    s = shape.shape

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        for address, stored, how in results(builder, s, args[1], y, args[3]):
            aligned = min(CACHE_LINE, s.count * SIZE[how.storage])
            lines = builder.store(stored, place(builder, address, args[2], how), align=aligned)
            lines.set_metadata("nontemporal", builder.module.add_metadata([I32(1)]))
        return context.get_dummy_value()

    return types.void(shape, p, types.intp, y), emit


@intrinsic
def write_first(typing: Any, shape: Any, p: Any, index: Any, y: Any, count: Any) -> Any:
    """Write the first `count` lanes, and nothing else."""
    s = shape.shape

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        mask = first(builder, args[4], s)
        for address, stored, how in results(builder, s, args[1], y, args[3]):
            name, pointer = f"llvm.masked.store.{suffix(stored.type)}.p0", place(builder, address, args[2], how)
            call(builder, name, ir.VoidType(), stored, pointer, I32(SIZE[how.storage]), mask)
        return context.get_dummy_value()

    return types.void(shape, p, types.intp, y, types.intp), emit


@intrinsic
def apply(typing: Any, kernel: Any, x: Any, format: Any) -> Any:
    """kernel(*x, format), for a kernel that is `Mathematics`."""
    returns = output_type(kernel.function, x.types, format.format)

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        values = cgutils.unpack_tuple(builder, args[1])
        made = write_out(kernel.function, builder, x.types, values, format.format)
        outputs = [widen(builder, y.value, y.type, x.types[0]) for y in made]
        return context.make_tuple(builder, returns, outputs) if len(outputs) > 1 else outputs[0]

    return returns(kernel, x, format), emit


@intrinsic
def with_nan_of(typing: Any, x: Any, y: Any) -> Any:
    """The outputs y; where the first input is NaN, that: of several made from it that meet, a processor takes any."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        given = builder.extract_value(args[0], 0)
        nan, quiet = builder.fcmp_unordered("uno", given, given), builder.fadd(given, given)
        chosen = [builder.select(nan, quiet, value) for value in outputs(builder, y, args[1])]
        return context.make_tuple(builder, y, chosen) if isinstance(y, types.BaseTuple) else chosen[0]

    return y(x, y), emit


@intrinsic
def addresses(typing: Any, shape: Any, args: Any) -> Any:
    """The addresses of the arrays, from the array of them that NumPy hands over."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        array = builder.inttoptr(args[1], I64.as_pointer())
        values = [builder.load(builder.gep(array, [I64(k)])) for k in range(len(shape.addresses))]
        return context.make_tuple(builder, shape.addresses, values)

    return shape.addresses(shape, types.intp), emit


@intrinsic
def pieces(typing: Any, shape: Any, start: Any, size: Any) -> Any:
    """The addresses of as many buffers of `size` bytes as there are arrays, one behind the other."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        values = [builder.add(args[1], builder.mul(args[2], I64(k))) for k in range(len(shape.addresses))]
        return context.make_tuple(builder, shape.addresses, values)

    return shape.addresses(shape, types.intp, types.intp), emit


@intrinsic
def move(typing: Any, shape: Any, target: Any, source: Any) -> Any:
    """Copy one element, by its bits."""
    integer = INTEGER[shape.shape.storage]

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        target, source = (builder.inttoptr(a, integer.as_pointer()) for a in args[1:])
        builder.store(builder.load(source), target)
        return context.get_dummy_value()

    return types.void(shape, types.intp, types.intp), emit


@intrinsic
def pull_alternate(typing: Any, shape: Any, target: Any, source: Any) -> Any:
    """Copy `shape.count` elements, every second one from `source` on; the one behind the last of them is read as well."""
    s = shape.shape

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        both = replace(s, count=2 * s.count)
        loaded = builder.load(place(builder, args[2], I64(0), both), align=SIZE[s.storage])
        even = ir.Constant(ir.VectorType(I32, s.count), [I32(2 * k) for k in range(s.count)])
        chosen = builder.shuffle_vector(loaded, loaded, even)
        builder.store(chosen, place(builder, args[1], I64(0), s), align=SIZE[s.storage])
        return context.get_dummy_value()

    return types.void(shape, types.intp, types.intp), emit


@intrinsic
def push_alternate(typing: Any, shape: Any, target: Any, source: Any) -> Any:
    """Copy `shape.count` elements to every second place from `target` on; what is between them isn't touched."""
    s = shape.shape

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        both = replace(s, count=2 * s.count)
        loaded = builder.load(place(builder, args[2], I64(0), s), align=SIZE[s.storage])
        twice = ir.Constant(ir.VectorType(I32, both.count), [I32(k // 2) for k in range(both.count)])
        spread, pointer = builder.shuffle_vector(loaded, loaded, twice), place(builder, args[1], I64(0), both)
        even = ir.Constant(ir.VectorType(I1, both.count), [I1(1 - k % 2) for k in range(both.count)])
        name = f"llvm.masked.store.{suffix(spread.type)}.p0"
        call(builder, name, ir.VoidType(), spread, pointer, I32(SIZE[s.storage]), even)
        return context.get_dummy_value()

    return types.void(shape, types.intp, types.intp), emit


@intrinsic(prefer_literal=True)
def scratch(typing: Any, size: Any) -> Any:
    """The address of `size` bytes on the stack, aligned to a cache line."""
    bytes = size.literal_value

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        with builder.goto_entry_block():
            space = builder.alloca(ir.ArrayType(I8, bytes))
        space.align = CACHE_LINE
        return builder.ptrtoint(space, I64)

    return types.intp(size), emit


@intrinsic
def word(typing: Any, address: Any, index: Any) -> Any:
    """The 64-bit integer at `address[index]`."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        return builder.load(builder.gep(builder.inttoptr(args[0], I64.as_pointer()), [args[1]]))

    return types.intp(types.intp, types.intp), emit


@intrinsic
def put_word(typing: Any, address: Any, index: Any, value: Any) -> Any:
    """Write it."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        builder.store(args[2], builder.gep(builder.inttoptr(args[0], I64.as_pointer()), [args[1]]))
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp), emit


@intrinsic
def address_of(typing: Any, pointer: Any) -> Any:
    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        return builder.ptrtoint(args[0], I64)

    return types.intp(pointer), emit


@intrinsic
def prefetch(typing: Any, shape: Any, p: Any, index: Any) -> Any:
    """Ask for the lines that the inputs' elements from `index` on lie in."""
    s = shape.shape

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        for address in cgutils.unpack_tuple(builder, args[1])[: s.inputs]:
            for start in range(0, s.count, CACHE_LINE // SIZE[s.storage]):
                line = place(builder, address, builder.add(args[2], I64(start)), s)
                pointer = builder.bitcast(line, I8.as_pointer())
                call(builder, "llvm.prefetch.p0", ir.VoidType(), pointer, I32(0), I32(3), I32(1))  # to read, keep, data
        return context.get_dummy_value()

    return types.void(shape, p, types.intp), emit


@intrinsic
def drain(typing: Any) -> Any:
    """Make what was streamed visible to other threads before anything that is written after it."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        if is_x86(builder):
            call(builder, "llvm.x86.sse.sfence", ir.VoidType())
        return context.get_dummy_value()

    return types.void(), emit


# --- float16 and bfloat16 -----------------------------------------------------------------------------------------------


# LLVM's own conversions of float16 are calls of a library where the machine has none; there, integers do the same to the same
# bits. bfloat16 is the upper half of float32; some processors flush subnormals when they convert to it, so integers always do.


def widened(builder: ir.IRBuilder, stored: ir.Value, shape: Shape) -> ir.Value:
    """What was loaded, in the format that is computed in."""
    computed = ir.VectorType(FLOAT[shape.format.name], shape.count)
    if stored.type == computed:
        return stored
    if shape.storage == "bfloat16":
        lanes = ir.VectorType(I32, shape.count)
        return builder.bitcast(builder.shl(builder.zext(stored, lanes), ir.Constant(lanes, [I32(16)] * shape.count)), computed)
    return builder.fpext(stored, computed) if shape.half else widened_by_integers(builder, stored, shape.count)


def narrowed(builder: ir.IRBuilder, value: ir.Value, shape: Shape) -> ir.Value:
    """What will be stored, rounded once to nearest, ties to even."""
    stored = ir.VectorType(STORED[shape.storage], shape.count)
    if value.type == stored:
        return value
    if shape.storage == "bfloat16":
        return upper_half(builder, value, shape.count)
    return builder.fptrunc(value, stored) if shape.half else narrowed_by_integers(builder, value, shape.count)


def upper_half(builder: ir.IRBuilder, value: ir.Value, count: int) -> ir.Value:
    lanes = ir.VectorType(I32, count)

    def number(value: int) -> ir.Constant:
        return ir.Constant(lanes, [I32(value)] * count)

    bits = builder.bitcast(value, lanes)
    odd = builder.and_(builder.lshr(bits, number(16)), number(1))
    rounded = builder.add(builder.add(bits, number(0x7FFF)), odd)
    quiet = builder.or_(bits, number(1 << 22))
    result = builder.select(builder.fcmp_unordered("uno", value, value), quiet, rounded)
    return builder.trunc(builder.lshr(result, number(16)), ir.VectorType(I16, count))


HALF_BIAS, HALF_DIGITS = (127 - 15) << 23, 23 - 10  # between the exponents and the significands of float32 and float16
HALF_INFINITY, QUIET = 0x7C00, 0x0200


def widened_by_integers(builder: ir.IRBuilder, half: ir.Value, count: int) -> ir.Value:
    lanes, single = ir.VectorType(I32, count), ir.VectorType(FLOAT["float32"], count)

    def number(value: int) -> ir.Constant:
        return ir.Constant(lanes, [I32(value)] * count)

    bits = builder.zext(builder.bitcast(half, ir.VectorType(I16, count)), lanes)
    magnitude = builder.and_(bits, number(0x7FFF))
    shifted = builder.shl(magnitude, number(HALF_DIGITS))
    normal = builder.add(shifted, number(HALF_BIAS))
    scale = ir.Constant(single, [FLOAT["float32"](2.0**-24)] * count)
    subnormal = builder.bitcast(builder.fmul(builder.uitofp(magnitude, single), scale), lanes)
    special = builder.add(normal, number(HALF_BIAS))
    special = builder.select(
        builder.icmp_unsigned(">", magnitude, number(HALF_INFINITY)), builder.or_(special, number(1 << 22)), special
    )
    result = builder.select(builder.icmp_unsigned("<", magnitude, number(0x0400)), subnormal, normal)
    result = builder.select(builder.icmp_unsigned(">=", magnitude, number(HALF_INFINITY)), special, result)
    sign = builder.shl(builder.and_(bits, number(0x8000)), number(16))
    return builder.bitcast(builder.or_(result, sign), single)


def narrowed_by_integers(builder: ir.IRBuilder, value: ir.Value, count: int) -> ir.Value:
    lanes, single = ir.VectorType(I32, count), value.type

    def number(value: int) -> ir.Constant:
        return ir.Constant(lanes, [I32(value)] * count)

    bits = builder.bitcast(value, lanes)
    magnitude = builder.and_(bits, number(0x7FFFFFFF))
    odd = builder.and_(builder.lshr(magnitude, number(HALF_DIGITS)), number(1))
    rounded = builder.add(builder.add(magnitude, number((1 << (HALF_DIGITS - 1)) - 1 - HALF_BIAS)), odd)
    normal = builder.lshr(rounded, number(HALF_DIGITS))
    half = ir.Constant(single, [FLOAT["float32"](0.5)] * count)  # its last place is float16's smallest subnormal
    sum = builder.bitcast(builder.fadd(builder.bitcast(magnitude, single), half), lanes)
    subnormal = builder.sub(sum, number(pattern(0.5, "float32")))
    payload = builder.and_(builder.lshr(magnitude, number(HALF_DIGITS)), number(0x03FF))
    nan = builder.or_(payload, number(HALF_INFINITY | QUIET))
    result = builder.select(builder.icmp_unsigned("<", magnitude, number(pattern(2.0**-14, "float32"))), subnormal, normal)
    too_large = builder.icmp_unsigned(">=", magnitude, number(pattern(65520.0, "float32")))
    result = builder.select(too_large, number(HALF_INFINITY), result)
    result = builder.select(builder.icmp_unsigned(">", magnitude, number(0xFF << 23)), nan, result)
    sign = builder.lshr(builder.and_(bits, number(1 << 31)), number(16))
    narrow = builder.trunc(builder.or_(result, sign), ir.VectorType(I16, count))
    return builder.bitcast(narrow, ir.VectorType(FLOAT["float16"], count))


# --- sums ---------------------------------------------------------------------------------------------------------------

CHAINS = 16  # sums that run beside each other: as many on every machine, for the order of a sum shows in its bits


@intrinsic
def accumulate(typing: Any, shape: Any, sums: Any, terms: Any) -> Any:
    """Add as many terms, in the format that is computed in, to the float64 sums."""
    number = FLOAT[shape.shape.format.name]

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        wide = ir.VectorType(FLOAT["float64"], CHAINS)
        place = builder.inttoptr(args[1], wide.as_pointer())
        loaded = builder.load(
            builder.inttoptr(args[2], ir.VectorType(number, CHAINS).as_pointer()), align=SIZE[shape.shape.format.name]
        )
        exact = loaded if loaded.type == wide else builder.fpext(loaded, wide)
        builder.store(builder.fadd(builder.load(place, align=CACHE_LINE), exact), place, align=CACHE_LINE)
        return context.get_dummy_value()

    return types.void(shape, types.intp, types.intp), emit


@intrinsic
def clear(typing: Any, shape: Any, address: Any) -> Any:
    """Write one zero, in the format that is computed in."""
    number = FLOAT[shape.shape.format.name]

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        builder.store(number(0.0), builder.inttoptr(args[1], number.as_pointer()))
        return context.get_dummy_value()

    return types.void(shape, types.intp), emit


@intrinsic
def clear_sums(typing: Any, sums: Any) -> Any:
    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        wide = ir.VectorType(FLOAT["float64"], CHAINS)
        builder.store(ir.Constant(wide, None), builder.inttoptr(args[0], wide.as_pointer()), align=CACHE_LINE)
        return context.get_dummy_value()

    return types.void(types.intp), emit


@intrinsic
def put_total(typing: Any, target: Any, sums: Any) -> Any:
    """Write the sum of the sums, taken in their order."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        number = FLOAT["float64"]
        wide = ir.VectorType(number, CHAINS)
        values = builder.load(builder.inttoptr(args[1], wide.as_pointer()), align=CACHE_LINE)
        total = call(builder, f"llvm.vector.reduce.fadd.{suffix(wide)}", number, number(0.0), values)
        builder.store(total, builder.inttoptr(args[0], number.as_pointer()))
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), emit


# --- conditions on whole vectors, and the state of the machine ----------------------------------------------------------


@intrinsic
def ordinary(typing: Any, shape: Any, x: Any) -> Any:
    """Whether the first input is in the shape's ordinary range, in every lane.

    By the bits, as integers: there NaN is the largest of all, and what is below the range, less its beginning, is larger still.
    """
    numbers, span = x[0], shape.shape.ordinary

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        name = name_of(numbers)
        lanes = builder.extract_value(args[1], 0)
        bits = as_bits(builder, numbers, magnitude(builder, numbers, lanes) if span.of_magnitude else lanes)
        if span.least:
            bits = builder.sub(bits, integer(numbers, pattern(span.least, name)))
        count = numbers.count
        while count * SIZE[name] > CACHE_LINE:
            count //= 2
            halves = [
                builder.shuffle_vector(
                    bits, bits, ir.Constant(ir.VectorType(I32, count), [I32(start + k) for k in range(count)])
                )
                for start in (0, count)
            ]
            bits = call(builder, f"llvm.umax.{suffix(halves[0].type)}", halves[0].type, *halves)
        highest = INTEGER[name](pattern(span.most, name) - pattern(span.least, name))
        beyond = builder.icmp_unsigned(">", bits, ir.Constant(bits.type, [highest] * count))
        return builder.icmp_unsigned("==", builder.bitcast(beyond, ir.IntType(count)), ir.IntType(count)(0))

    return types.boolean(shape, x), emit


def pattern(number: float, name: str) -> int:
    """A number's bits, as an integer."""
    return int.from_bytes(struct.pack({"float32": "<f", "float64": "<d"}[name], number), "little")


@intrinsic
def set_float_mode(typing: Any, flush: Any) -> Any:
    """Round to nearest and trap nothing, whatever the caller's mode; the state before is returned, to be restored.

    With `flush`, subnormals are treated as zero: for kernels whose arithmetic may meet them but never needs them. On Intel
    each operation that meets one otherwise costs some 150 cycles (float32 sigmoid of subnormals: 23 ns an element for 0.34).
    """

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        if is_x86(builder):
            before = read_mode(builder)
            wanted = builder.select(args[0], I32(DEFAULT_MODE | FLUSH_MODE), I32(DEFAULT_MODE))
            with builder.if_then(builder.icmp_unsigned("!=", builder.and_(before, I32(~FLAGS)), wanted), likely=False):
                write_mode(builder, builder.or_(wanted, builder.and_(before, I32(FLAGS))))
            return builder.zext(before, I64)
        if is_aarch64(builder):
            control, status = (call(builder, f"llvm.aarch64.get.{register}", I64) for register in ("fpcr", "fpsr"))
            call(builder, "llvm.aarch64.set.fpcr", ir.VoidType(), builder.select(args[0], I64(AARCH64_FLUSH), I64(0)))
            return builder.or_(builder.shl(status, I64(32)), control)
        return I64(0)

    return types.intp(types.boolean), emit


@intrinsic
def restore_float_mode(typing: Any, before: Any) -> Any:
    """The caller's mode, and its exception flags as they were. Writing them costs ten times as much as looking."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        if is_x86(builder):
            before = builder.trunc(args[0], I32)
            with builder.if_then(builder.icmp_unsigned("!=", read_mode(builder), before), likely=False):
                write_mode(builder, before)
        elif is_aarch64(builder):
            call(builder, "llvm.aarch64.set.fpcr", ir.VoidType(), builder.and_(args[0], I64(0xFFFFFFFF)))
            call(builder, "llvm.aarch64.set.fpsr", ir.VoidType(), builder.lshr(args[0], I64(32)))
        return context.get_dummy_value()

    return types.void(types.intp), emit


DEFAULT_MODE, FLUSH_MODE, FLAGS = 0x1F80, 0x8040, 0x3F  # MXCSR: all masked; flush to zero, denormals are zero; sticky flags
AARCH64_FLUSH = 1 << 24


def is_x86(builder: ir.IRBuilder) -> bool:
    return str(builder.module.triple).startswith(("x86_64", "i686"))


def is_aarch64(builder: ir.IRBuilder) -> bool:
    return str(builder.module.triple).startswith(("aarch64", "arm64"))


def read_mode(builder: ir.IRBuilder) -> ir.Value:
    slot = cgutils.alloca_once(builder, I32)
    call(builder, "llvm.x86.sse.stmxcsr", ir.VoidType(), slot)
    return builder.load(slot)


def write_mode(builder: ir.IRBuilder, mode: ir.Value) -> None:
    slot = cgutils.alloca_once(builder, I32)
    builder.store(mode, slot)
    call(builder, "llvm.x86.sse.ldmxcsr", ir.VoidType(), slot)


# --- threads ------------------------------------------------------------------------------------------------------------


@intrinsic
def call_address(typing: Any, address: Any) -> Any:
    """What the C function `int f(void)` at this address returns."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        return builder.zext(builder.call(builder.inttoptr(args[0], ir.FunctionType(I32, []).as_pointer()), []), I64)

    return types.intp(types.intp), emit


@intrinsic
def call_address_with(typing: Any, address: Any, first: Any, second: Any, third: Any) -> Any:
    """What the C function `int f(long, long, long)` at this address returns."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        function = builder.inttoptr(args[0], ir.FunctionType(I32, [I64] * 3).as_pointer())
        return builder.zext(builder.call(function, args[1:]), I64)

    return types.intp(*[types.intp] * 4), emit


@intrinsic
def acquire(typing: Any, address: Any) -> Any:
    """Turn the integer at `address` from 0 to 1, in one step; whether this thread did it."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        pointer = builder.inttoptr(args[0], I64.as_pointer())
        return builder.extract_value(builder.cmpxchg(pointer, I64(0), I64(1), "acq_rel", "monotonic"), 1)

    return types.boolean(types.intp), emit


@intrinsic
def release(typing: Any, address: Any) -> Any:
    """Turn it back to 0."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        builder.store_atomic(I64(0), builder.inttoptr(args[0], I64.as_pointer()), "release", 8)
        return context.get_dummy_value()

    return types.void(types.intp), emit


@intrinsic
def add_to(typing: Any, address: Any, value: Any) -> Any:
    """Add to the integer at `address`, in one step."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        builder.atomic_rmw("add", builder.inttoptr(args[0], I64.as_pointer()), args[1], "monotonic")
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), emit


@intrinsic
def team(typing: Any, share: Any, start: Any, threads: Any, args: Any, steps: Any, count: Any, data: Any) -> Any:
    """Run `share(args, steps, count, data)` on `threads` threads at once; `start` is the address of GOMP_parallel."""
    arguments = (types.intp,) * 4
    call_type = share.get_call_type(typing, arguments, {})

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        record = cgutils.alloca_once(builder, ir.ArrayType(I64, len(arguments)))
        for k, value in enumerate(values[3:]):
            builder.store(value, builder.gep(record, [I32(0), I32(k)]))
        entry = ir.Function(
            builder.module, ir.FunctionType(ir.VoidType(), [record.type]), builder.module.get_unique_name("share")
        )
        entry.linkage = "internal"
        inside = ir.IRBuilder(entry.append_basic_block())
        fields = [inside.load(inside.gep(entry.args[0], [I32(0), I32(k)])) for k in range(len(arguments))]
        compiled = share.dispatcher.get_compile_result(call_type)
        context.add_linking_libs([compiled.library])
        context.call_internal_no_propagate(inside, compiled.fndesc, call_type, fields)
        inside.ret_void()
        begin = ir.FunctionType(ir.VoidType(), [entry.type, record.type, I32, I32])
        builder.call(builder.inttoptr(values[1], begin.as_pointer()), [entry, record, builder.trunc(values[2], I32), I32(0)])
        return context.get_dummy_value()

    return types.void(share, types.intp, types.intp, *arguments), emit
