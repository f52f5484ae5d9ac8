"""A network's compiled loops: rounds of training for small networks, the optimiser's step and the softmax for all.

Small networks are trained by `rounds`, one function with everything in it: a round of the XOR network takes less than a single
call of a NumPy function. A sample at a time goes forward and back; a layer is a vector of units, so that one
instruction does for five units what it does for eight. Sums run over a layer's inputs in their order, in every lane the same:
nothing is reassociated, and the activations are the library's own kernels.

Weights are stored (inputs, outputs), with the bias as one more row. For the way back, which runs along the outputs, each layer
but the first keeps them transposed as well, renewed after each step: both ways are then the same function.

What is to be done is written in words (the names below, then a row of LAYER for each layer) and in numbers, which also hold
what the optimiser counts. Nothing is allocated, and nothing is referred to but what the arguments point to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

ACTIVATIONS = {"linear": 0, "sigmoid": 1, "tanh": 2, "silu": 3}
LOSSES = {"squared": 0, "bce": 1, "cross_entropy": 2}
OPTIMIZERS = {"sgd": 0, "adam": 1, "rprop": 2}

# words
ROUNDS, SAMPLES, BATCH, LAYERS, LOSS, OPTIMIZER, PARAMETERS, SUMMED, WEIGHTED, SHUFFLED, SPARE, TABLE = range(12)
# of a layer: its inputs and outputs, its activation; where its parameters are; where, in the workspace, what comes in is, its
# values, their derivatives, its deltas, and its weights transposed. The first layer's input is at the workspace's beginning.
# Each of these has room behind it up to a multiple of ROOM, so that whole registers can be written, and so has the gradient.
INPUTS, OUTPUTS, ACTIVATION, WEIGHTS, SOURCE, VALUES, SLOPES, DELTAS, TRANSPOSED = range(9)
ROW = 9
# numbers: the optimiser's settings; what it counts, the products of its decay rates; the loss at which training ends; what a
# round's loss is divided by
(
    RATE,
    MOMENTUM,
    NESTEROV,
    CORRECTION,
    DECAY,
    BETA_1,
    BETA_2,
    EPSILON,
    POWER_1,
    POWER_2,
    GROWTH,
    SHRINKAGE,
    LARGEST,
    SMALLEST,
    LIMIT,
    TOTAL,
) = range(16)
NUMBERS = 16
ROOM = 16  # as many numbers as a register holds, at most
STATES = 2  # vectors that an optimiser keeps, as long as the parameters


def rounds_of(storage: str) -> Callable[[Any], tuple[Any, Callable[..., Any]]]:
    """What `compiler.program` makes the training loop for numbers of `storage` of."""

    def make(chosen: Any) -> tuple[Any, Callable[..., Any]]:
        from numba import types

        number = types.CPointer(getattr(types, storage))
        words, doubles = types.CPointer(types.int64), types.CPointer(types.float64)
        signature = types.int64(words, doubles, words, *[number] * 7, doubles)
        return signature, training(storage, chosen.register, chosen.half)

    return make


def step_of(storage: str) -> Callable[[Any], tuple[Any, Callable[..., Any]]]:
    """The optimiser's step alone."""

    def make(chosen: Any) -> tuple[Any, Callable[..., Any]]:
        from numba import types

        from fastsig import lanes

        number = types.CPointer(getattr(types, storage))
        signature = types.void(types.CPointer(types.int64), types.CPointer(types.float64), *[number] * 3)
        step = optimizer(storage)

        def alone(words, numbers, parameters, gradient, state):  # type: ignore[no-untyped-def]
            mode = lanes.set_float_mode(False)
            step(words, numbers, parameters, gradient, state)
            lanes.restore_float_mode(mode)

        return signature, alone

    return make


def softmax_of(storage: str) -> Callable[[Any], tuple[Any, Callable[..., Any]]]:
    """Rows of logits z, and targets t, to probabilities, to gradients and losses."""

    def make(chosen: Any) -> tuple[Any, Callable[..., Any]]:
        from numba import types

        from fastsig import lanes

        number = types.CPointer(getattr(types, storage))
        rows = softmax(storage, chosen.register, chosen.half)

        def alone(count, classes, z, t, p, delta, losses):  # type: ignore[no-untyped-def]
            mode = lanes.set_float_mode(False)
            rows(count, classes, z, 0, t, 0, p, 0, delta, 0, losses, 0)
            lanes.restore_float_mode(mode)

        return types.void(types.int64, types.int64, *[number] * 5), alone

    return make


# --- the optimisers' step ----------------------------------------------------------------------------------------------


def optimizer(storage: str) -> Any:
    """One step of any optimiser over all parameters. Plain loops: LLVM makes vectors of them, for no sum is in them."""
    from numba import types

    from fastsig import lanes  # noqa: F401  # gives `root` its meaning
    from fastsig.instructions import root
    from fastsig.loops import jit

    number = getattr(types, storage)
    zero, one = number(0), number(1)

    @jit()
    def add_decay(words, decay, parameters, gradient):  # type: ignore[no-untyped-def]
        """Of the weights; biases stay as they are."""
        for layer in range(words[LAYERS]):
            row = TABLE + ROW * layer
            start = words[row + WEIGHTS]
            for k in range(start, start + words[row + INPUTS] * words[row + OUTPUTS]):
                gradient[k] += decay * parameters[k]

    @jit()
    def descend(words, numbers, parameters, gradient, state):  # type: ignore[no-untyped-def]
        """Gradient descent; the state is the velocity, then the gradient before this one."""
        count = words[PARAMETERS]
        rate, momentum = number(numbers[RATE]), number(numbers[MOMENTUM])
        nesterov, correction = number(numbers[NESTEROV]), number(numbers[CORRECTION])
        if momentum == zero and correction == zero:
            for k in range(count):
                parameters[k] -= rate * gradient[k]
        elif momentum == zero:
            for k in range(count):
                parameters[k] -= rate * gradient[k] + correction * state[count + k]
                state[count + k] = gradient[k]
        else:
            for k in range(count):
                g = gradient[k]
                velocity = momentum * state[k] + g
                ahead = velocity + nesterov * (momentum * velocity + g - velocity)
                parameters[k] -= rate * ahead + correction * state[count + k]
                state[k] = velocity
                state[count + k] = g

    @jit()
    def adapt(words, numbers, parameters, gradient, state):  # type: ignore[no-untyped-def]
        """Adam; the state is the gradient's running mean, then that of its square."""
        count = words[PARAMETERS]
        beta_1, beta_2, epsilon = number(numbers[BETA_1]), number(numbers[BETA_2]), number(numbers[EPSILON])
        numbers[POWER_1] *= numbers[BETA_1]
        numbers[POWER_2] *= numbers[BETA_2]
        rate = number(numbers[RATE] / (1.0 - numbers[POWER_1]))
        scale = number(1.0 / (1.0 - numbers[POWER_2]))
        for k in range(count):
            g = gradient[k]
            mean = beta_1 * state[k] + (one - beta_1) * g
            square = beta_2 * state[count + k] + (one - beta_2) * (g * g)
            state[k], state[count + k] = mean, square
            parameters[k] -= rate * mean / (root(square * scale) + epsilon)

    @jit()
    def by_sign(words, numbers, parameters, gradient, state):  # type: ignore[no-untyped-def]
        """Resilient propagation; the state is each parameter's own step, then the gradient before this one."""
        count = words[PARAMETERS]
        growth, shrinkage = number(numbers[GROWTH]), number(numbers[SHRINKAGE])
        largest, smallest = number(numbers[LARGEST]), number(numbers[SMALLEST])
        for k in range(count):
            g, step = gradient[k], state[k]
            step = number(numbers[RATE]) if step == zero else step
            agreement = g * state[count + k]
            step = min(step * growth, largest) if agreement > zero else step
            step = max(step * shrinkage, smallest) if agreement < zero else step
            g = zero if agreement < zero else g
            parameters[k] -= step if g > zero else (-step if g < zero else zero)
            state[k], state[count + k] = step, g

    @jit()
    def step(words, numbers, parameters, gradient, state):  # type: ignore[no-untyped-def]
        if numbers[DECAY] != 0.0:
            add_decay(words, number(numbers[DECAY]), parameters, gradient)
        if words[OPTIMIZER] == 0:
            descend(words, numbers, parameters, gradient, state)
        elif words[OPTIMIZER] == 1:
            adapt(words, numbers, parameters, gradient, state)
        else:
            by_sign(words, numbers, parameters, gradient, state)

    return step


# --- layers --------------------------------------------------------------------------------------------------------------


def through(kernel: Callable[..., Any], outputs: int, storage: str, register: int, half: bool) -> Any:
    """The kernel of n numbers: their address, and those of its outputs. There is room behind all of them."""
    from fastsig import lanes
    from fastsig.loops import jit

    function, f, last = lanes.Mathematics(kernel), lanes.FORMATS[storage], register // lanes.SIZE[storage]
    shape = lanes.Shape(storage, last, 1, outputs, half, None)

    @jit()
    def over(p, n):  # type: ignore[no-untyped-def]
        for i in range(0, n, last):
            lanes.write(shape, p, i, lanes.apply(function, lanes.read(shape, p, i), f))

    return over


def compared(kernel: Callable[..., Any], storage: str, register: int, half: bool) -> Any:
    """The losses of n values and targets, and the deltas. Only targets have no room behind them; that behind the deltas isn't
    written to: it stays 0."""
    from fastsig import lanes
    from fastsig.loops import jit

    function, f, last = lanes.Mathematics(kernel), lanes.FORMATS[storage], register // lanes.SIZE[storage]
    given, made = lanes.Shape(storage, last, 2, 0, half, None), lanes.Shape(storage, last, 0, 1, half, None)

    @jit()
    def over(y, t, losses, deltas, n):  # type: ignore[no-untyped-def]
        for i in range(0, n, last):
            count = min(n - i, last)
            loss, delta = lanes.apply(function, lanes.read_first(given, (y, t), i, count), f)
            lanes.write(made, (losses,), i, loss)
            lanes.write_first(made, (deltas,), i, delta, count)

    return over


# --- softmax -----------------------------------------------------------------------------------------------------------


def softmax(storage: str, register: int, half: bool) -> Any:
    """The softmax of rows, and the cross-entropy with its gradient, none of which cancels at hard labels.

    With m the largest logit, e_k = exp(z_k - m), R the sum of all but that one's own 1: the loss is ln(1 + R) + Σ t_k·(m -
    z_k), a sum of what isn't negative; the gradient p_k - t_k is (e_k·(T - t_k) - t_k·(the others' sum)) / (1 + R), T = Σ t_k.
    """
    from fastsig import kernels, lanes
    from fastsig.instructions import fma, polynomial, power_of_two
    from fastsig.loops import jit, register_parts

    register_parts()
    f: Any = lanes.FORMATS[storage]
    size = lanes.SIZE[storage]
    distance, reduced, exponential = kernels.distance, kernels.reduced, kernels.exponential
    logit = jit()(kernels.KERNELS["logit"].function)

    def decayed(a: Any, f: Any) -> Any:
        """e^-a for a >= 0"""
        a = distance(a, f)
        v = reduced(a, f)
        r, tail = exponential(a, v, f.exp_even, f)
        return power_of_two(v) / fma(tail, f.unit, fma(r, f.unit, f.unit))

    decay = through(decayed, 1, storage, register, half)

    @jit()
    def log_of_one_and(rest):  # type: ignore[no-untyped-def]
        """ln(1 + rest) for rest >= 0: 2 artanh(u), u = rest / (2 + rest), or by the logit, ln(q / (1 - q))."""
        below = f.one + f.one + rest
        if rest <= f.one:
            u = rest / below
            w = u * u
            return fma(u + u, w * polynomial(w, w * w, f.artanh), u + u)
        return -logit(f.one / below, f)

    @jit()
    def largest(classes, z, start):  # type: ignore[no-untyped-def]
        top = 0
        for k in range(1, classes):
            if z[start + k] > z[start + top]:
                top = k
        return top

    @jit()
    def finish(classes, top, z, of_z, t, of_t, p, of_p, delta, of_delta):  # type: ignore[no-untyped-def]
        """A row's loss, and all the rest of it."""
        rest, targets, loss = f.zero, f.zero, f.zero
        for k in range(classes):
            target = t[of_t + k]
            targets += target
            if target != f.zero:
                loss += target * (z[of_z + top] - z[of_z + k])
            if k != top:
                rest += p[of_p + k]
        total = f.one + rest
        for k in range(classes):
            e, target = p[of_p + k], t[of_t + k]
            others = rest if k == top else total - e
            delta[of_delta + k] = (e * (targets - target) - target * others) / total
            p[of_p + k] = e / total
        return loss + targets * log_of_one_and(rest)

    @jit()
    def rows(count, classes, z, of_z, t, of_t, p, of_p, delta, of_delta, losses, of_losses):  # type: ignore[no-untyped-def]
        """Of each array, where in it the rows begin. The exponentials of all rows are computed together, in lanes: 200 rows
        of 10, float64, take half of the 59 µs that they took with a number at a time."""
        for row in range(count):
            k = row * classes
            highest = z[of_z + k + largest(classes, z, of_z + k)]
            for j in range(k, k + classes):
                p[of_p + j] = highest - z[of_z + j]
        start = lanes.address_of(p) + of_p * size
        decay((start, start), count * classes)
        for row in range(count):
            k = row * classes
            top = largest(classes, z, of_z + k)
            losses[of_losses + row] = finish(classes, top, z, of_z + k, t, of_t + k, p, of_p + k, delta, of_delta + k)

    return rows


# --- training ----------------------------------------------------------------------------------------------------------


def training(storage: str, register: int, half: bool) -> Callable[..., int]:
    """The loop over rounds, batches, samples and layers."""
    from numba import types
    from numba.types import intp

    from fastsig import lanes
    from fastsig.instructions import fma, select
    from fastsig.kernels import KERNELS
    from fastsig.lanes import SIZE, Shape
    from fastsig.loops import jit, register_parts

    register_parts()
    inf = float("inf")
    f: Any = lanes.FORMATS[storage]
    number = getattr(types, storage)
    size, last = SIZE[storage], register // SIZE[storage]
    one = Shape(storage, last, 1, 0, half, None)
    into = Shape(storage, last, 0, 1, half, None)
    two = Shape(storage, last, 2, 0, half, None)
    step, rows = optimizer(storage), softmax(storage, register, half)

    def linear(x: Any, f: Any) -> Any:
        return x, select(x == x, f.one, x)

    def squared(y: Any, t: Any, f: Any) -> Any:
        return f.half * (y - t) * (y - t), y - t

    linear_layer = through(linear, 2, storage, register, half)
    sigmoid_layer, tanh_layer, silu_layer = (
        through(KERNELS[f"{name}_value_and_grad"].function, 2, storage, register, half) for name in ("sigmoid", "tanh", "silu")
    )
    squared_loss = compared(squared, storage, register, half)
    bce_loss = compared(KERNELS["bce_with_logits_value_and_grad"].function, storage, register, half)

    @jit(types.CPointer(number), intp, returns=intp)
    def at(base, index):  # type: ignore[no-untyped-def]
        return lanes.address_of(base) + index * size

    @jit()
    def activate(code, p, n):  # type: ignore[no-untyped-def]
        if code == 1:
            sigmoid_layer(p, n)
        elif code == 2:
            tanh_layer(p, n)
        elif code == 3:
            silu_layer(p, n)
        else:
            linear_layer(p, n)

    @jit()
    def affine(weights, x, start, inputs, outputs, biased, z):  # type: ignore[no-untyped-def]
        """The outputs at the address z: x·W, plus the bias, which is W's row behind the last."""
        for j in range(0, outputs, last):
            count = min(outputs - j, last)
            total = lanes.read_first(one, (weights,), inputs * outputs + j, count if biased else 0)[0]
            for i in range(inputs):
                total = fma(lanes.read_first(one, (weights,), i * outputs + j, count)[0], x[start + i], total)
            lanes.write(into, (z,), j, total)

    @jit()
    def dot(weights, x, inputs, work, spare):  # type: ignore[no-untyped-def]
        """x·w for the single column of a layer with one output, where `affine` would work in one lane: the inputs take lanes in
        turn, whose sums are added in the end, by way of the workspace's spare room."""
        total = lanes.read_first(one, (weights,), 0, 0)[0]
        for i in range(0, inputs, last):
            w, y = lanes.read_first(two, (weights, x), i, min(inputs - i, last))
            total = fma(w, y, total)
        lanes.write(into, (at(work, spare),), 0, total)
        result = f.zero
        for k in range(spare, spare + last):
            result += work[k]
        return result

    @jit()
    def add_products(x, start, inputs, outputs, delta, gradient):  # type: ignore[no-untyped-def]
        """gradient += the outer product of x and delta. A register may reach into the next row, where it adds 0: a store that
        is masked costs as much as ten that aren't on AMD's processors without AVX-512."""
        for j in range(0, outputs, last):
            d = lanes.read_first(one, (delta,), j, min(outputs - j, last))[0]
            for i in range(inputs):
                place = i * outputs + j
                lanes.write(into, (gradient,), place, fma(d, x[start + i], lanes.read(one, (gradient,), place)[0]))

    @jit()
    def add(delta, sums, n):  # type: ignore[no-untyped-def]
        """sums += delta, at the addresses: the biases' gradient."""
        for j in range(0, n, last):
            lanes.write(into, (sums,), j, lanes.read(one, (delta,), j)[0] + lanes.read(one, (sums,), j)[0])

    @jit()
    def multiply(x, y, n):  # type: ignore[no-untyped-def]
        """y *= x, at the addresses."""
        for i in range(0, n, last):
            lanes.write(into, (y,), i, lanes.read(one, (x,), i)[0] * lanes.read(one, (y,), i)[0])

    @jit()
    def transpose(words, parameters, work):  # type: ignore[no-untyped-def]
        for layer in range(1, words[LAYERS]):
            here = TABLE + ROW * layer
            inputs, outputs, start = words[here + INPUTS], words[here + OUTPUTS], words[here + WEIGHTS]
            for i in range(inputs):
                for j in range(outputs):
                    work[words[here + TRANSPOSED] + j * inputs + i] = parameters[start + i * outputs + j]

    @jit()
    def forward(words, parameters, work):  # type: ignore[no-untyped-def]
        for layer in range(words[LAYERS]):
            here = TABLE + ROW * layer
            inputs, outputs, source, start = (
                words[here + INPUTS],
                words[here + OUTPUTS],
                words[here + SOURCE],
                words[here + WEIGHTS],
            )
            z, y, weights = at(work, words[here + SLOPES]), at(work, words[here + VALUES]), at(parameters, start)
            if outputs == 1:
                product = dot(weights, at(work, source), inputs, work, words[SPARE])
                work[words[here + SLOPES]] = product + parameters[start + inputs]
            else:
                affine(weights, work, source, inputs, outputs, True, z)
            activate(words[here + ACTIVATION], (z, y, z), outputs)

    @jit()
    def compare(words, t, start, work):  # type: ignore[no-untyped-def]
        """The loss; the last layer's deltas become its derivative with respect to the sums. What the losses are made of is
        written over values and slopes, which nobody needs any more."""
        here = TABLE + ROW * (words[LAYERS] - 1)
        outputs, values, slopes, deltas = (
            words[here + OUTPUTS],
            words[here + VALUES],
            words[here + SLOPES],
            words[here + DELTAS],
        )
        if words[LOSS] == 2:
            rows(1, outputs, work, values, t, start, work, slopes, work, deltas, work, words[SPARE])
            return work[words[SPARE]]
        y, d, target = at(work, values), at(work, deltas), at(t, start)
        if words[LOSS] == 1:
            bce_loss(y, target, y, d, outputs)
        else:
            squared_loss(y, target, y, d, outputs)
            multiply(at(work, slopes), d, outputs)
        loss = f.zero
        for k in range(values, values + outputs):
            loss += work[k]
        return loss

    @jit()
    def backward(words, gradient, work):  # type: ignore[no-untyped-def]
        layer = words[LAYERS] - 1
        while layer >= 0:
            here = TABLE + ROW * layer
            inputs, outputs, deltas = words[here + INPUTS], words[here + OUTPUTS], words[here + DELTAS]
            source, sums, d = words[here + SOURCE], at(gradient, words[here + WEIGHTS]), at(work, deltas)
            if outputs == 1:  # the inputs are many, and make better lanes
                add_products(work, deltas, 1, inputs, at(work, source), sums)
            else:
                add_products(work, source, inputs, outputs, d, sums)
            add(d, sums + inputs * outputs * size, outputs)
            if layer > 0:
                below = here - ROW
                d = at(work, words[below + DELTAS])
                affine(at(work, words[here + TRANSPOSED]), work, deltas, outputs, inputs, False, d)
                multiply(at(work, words[below + SLOPES]), d, inputs)
            layer -= 1

    @jit()
    def share_of(words, order, turn, weight, begin, end):  # type: ignore[no-untyped-def]
        """What the samples' losses are multiplied by: one over the sum of their weights, if it is their mean that counts."""
        if words[SUMMED]:
            return f.one
        total = f.zero
        for position in range(begin, end):
            total += weight[order[turn + position] if words[SHUFFLED] else position] if words[WEIGHTED] else f.one
        return f.one / total if total > f.zero else f.zero

    @jit()
    def train(words, numbers, order, turn, x, t, weight, parameters, gradient, state, work):  # type: ignore[no-untyped-def]
        """One round; the loss of all samples, each as it was before the step that it led to."""
        samples, inputs = words[SAMPLES], words[TABLE + INPUTS]
        last_layer = TABLE + ROW * (words[LAYERS] - 1)
        outputs, deltas = words[last_layer + OUTPUTS], words[last_layer + DELTAS]
        loss, begin = 0.0, 0
        while begin < samples:
            end = min(begin + words[BATCH], samples)
            for k in range(words[PARAMETERS]):
                gradient[k] = f.zero
            share = share_of(words, order, turn, weight, begin, end)
            for position in range(begin, end):
                sample = order[turn + position] if words[SHUFFLED] else position
                for k in range(inputs):
                    work[k] = x[sample * inputs + k]
                forward(words, parameters, work)
                counts = weight[sample] if words[WEIGHTED] else f.one
                loss += types.float64(counts * compare(words, t, sample * outputs, work))
                for k in range(deltas, deltas + outputs):
                    work[k] *= share * counts
                backward(words, gradient, work)
            step(words, numbers, parameters, gradient, state)
            transpose(words, parameters, work)
            begin = end
        return loss

    def rounds(words, numbers, order, x, t, weight, parameters, gradient, state, work, losses):  # type: ignore[no-untyped-def]
        mode = lanes.set_float_mode(False)
        transpose(words, parameters, work)
        done, going = 0, True
        while going and done < words[ROUNDS]:
            losses[done] = (
                train(words, numbers, order, done * words[SAMPLES], x, t, weight, parameters, gradient, state, work)
                / numbers[TOTAL]
            )
            going = numbers[LIMIT] < losses[done] < inf
            done += 1
        lanes.restore_float_mode(mode)
        return done

    return rounds
