"""Attention of each library, for invariance.py.

Arrays are numpy float32, [heads][tokens][dim]. A class has

    version                      of the library
    attend(q, k, v)              every query sees every key
    causal(q, k, v)              the last query sees the last key, and each one before it one key fewer
    cached(q, k, v, first)       yields what causal gives, for one query at a time from position `first` on, from
                                 the cache that the library has
    isas                         how to hold a process to the instruction sets of an x86-64: name: environment, and a
                                 command that runs the process

Each has the fewest options that the library allows: float32 arithmetic, no masks but those above.
"""

import ctypes
import os

import numpy

# For libraries that take all that the processor has: QEMU shows them less of it.
HASWELL = "qemu-x86_64", "-cpu", "Haswell,-hle,-rtm,-invpcid,-pcid,-x2apic,-tsc-deadline"
NEHALEM = "qemu-x86_64", "-cpu", "Nehalem,-x2apic"


class Sdpa:
    """The C library, by ctypes; SDPA_LIBRARY is the file."""

    isas = {
        isa: ({"SDPA_ISA": backend}, ())
        for isa, backend in (("avx512", "avx512"), ("avx2", "avx2"), ("sse", "portable"))
    }

    def __init__(self, threads):
        self.threads = threads
        self.lib = ctypes.CDLL(os.environ["SDPA_LIBRARY"])
        self.lib.sdpa_version.restype = self.lib.sdpa_backend.restype = ctypes.c_char_p
        self.lib.sdpa_attention_workspace.restype = self.lib.sdpa_cache_floats.restype = ctypes.c_size_t
        self.version = self.lib.sdpa_version().decode()
        isa = os.environ.get("SDPA_ISA", self.lib.sdpa_backend().decode())
        self.backend = self.lib.sdpa_backend_by_name(isa.encode())

    class Matrix(ctypes.Structure):
        _fields_ = [("data", ctypes.c_void_p)] + [(n, ctypes.c_size_t) for n in ("rows", "cols", "rs", "cs")]

    class Options(ctypes.Structure):
        _fields_ = [
            ("flags", ctypes.c_uint32), ("scale", ctypes.c_float), ("softcap", ctypes.c_float),
            ("query_offset", ctypes.c_ssize_t), ("rest", ctypes.c_size_t * 11),
        ]

    class Cache(ctypes.Structure):
        _fields_ = [
            ("storage", ctypes.c_void_p), ("dim", ctypes.c_size_t), ("value_dim", ctypes.c_size_t),
            ("blocks", ctypes.c_size_t), ("appended", ctypes.c_uint64), ("dropped", ctypes.c_uint64),
        ]

    def matrix(self, a):
        return self.Matrix(a.ctypes.data, *a.shape, a.strides[0] // 4, 1)

    def check(self, status):
        assert status == 0, f"status {status}"

    def run(self, q, k, v, options):
        from concurrent.futures import ThreadPoolExecutor

        out = numpy.empty((len(q), q.shape[1], v.shape[2]), numpy.float32)
        dim, width = k.shape[2], v.shape[2]
        floats = self.lib.sdpa_attention_workspace(ctypes.c_size_t(dim), ctypes.c_size_t(width))

        def head(h):
            work = numpy.empty(floats, numpy.float32)
            self.check(self.lib.sdpa_attention_on(
                self.backend, self.matrix(q[h]), self.matrix(k[h]), self.matrix(v[h]), ctypes.byref(options),
                self.matrix(out[h]), None, ctypes.c_void_p(work.ctypes.data), ctypes.c_size_t(floats)))

        with ThreadPoolExecutor(self.threads) as pool:
            list(pool.map(head, range(len(q))))
        return out

    def attend(self, q, k, v):
        return self.run(q, k, v, self.Options())

    def causal(self, q, k, v):
        return self.run(q, k, v, self.Options(flags=1, query_offset=k.shape[1] - q.shape[1]))

    def cached(self, q, k, v, first):
        dim, width, blocks = k.shape[2], v.shape[2], k.shape[1] // 64 + 1
        floats = self.lib.sdpa_attention_workspace(ctypes.c_size_t(dim), ctypes.c_size_t(width))
        work = numpy.empty(floats, numpy.float32)
        caches = []
        for h in range(len(k)):
            storage = numpy.empty(self.lib.sdpa_cache_floats(
                ctypes.c_size_t(dim), ctypes.c_size_t(width), ctypes.c_size_t(blocks)), numpy.float32)
            cache = self.Cache()
            self.check(self.lib.sdpa_cache_init(
                ctypes.byref(cache), ctypes.c_size_t(dim), ctypes.c_size_t(width),
                ctypes.c_void_p(storage.ctypes.data), ctypes.c_size_t(storage.size)))
            self.check(self.lib.sdpa_cache_append(
                ctypes.byref(cache), self.matrix(k[h, :first]), self.matrix(v[h, :first])))
            caches.append((cache, storage))
        for i in range(first, k.shape[1]):
            out = numpy.empty((len(q), 1, width), numpy.float32)
            for h, (cache, _) in enumerate(caches):
                token = slice(i, i + 1)
                self.check(self.lib.sdpa_cache_append(
                    ctypes.byref(cache), self.matrix(k[h, token]), self.matrix(v[h, token])))
                self.check(self.lib.sdpa_cache_attend_on(
                    self.backend, ctypes.byref(cache), self.matrix(q[h, i - first:][:1]), None, self.matrix(out[h]),
                    None, ctypes.c_void_p(work.ctypes.data), ctypes.c_size_t(floats)))
            yield out


class Torch:
    """torch.nn.functional.scaled_dot_product_attention."""

    isas = {
        isa: ({"ATEN_CPU_CAPABILITY": aten, "MKL_ENABLE_INSTRUCTIONS": mkl}, ())
        for isa, aten, mkl in (("avx512", "avx512", "AVX512"), ("avx2", "avx2", "AVX2"), ("sse", "default", "SSE4_2"))
    }

    def __init__(self, threads):
        import torch

        torch.set_num_threads(threads)
        self.torch = torch
        self.version = torch.__version__.split("+")[0]

    def run(self, q, k, v, **options):
        q, k, v = (self.torch.from_numpy(numpy.ascontiguousarray(a))[None] for a in (q, k, v))
        with self.torch.inference_mode():
            return self.torch.nn.functional.scaled_dot_product_attention(q, k, v, **options)[0].numpy()

    def attend(self, q, k, v):
        return self.run(q, k, v)

    def causal(self, q, k, v):
        if q.shape[1] == 1:
            return self.run(q, k, v)
        if q.shape[1] == k.shape[1]:
            return self.run(q, k, v, is_causal=True)
        from torch.nn.attention.bias import causal_lower_right

        return self.run(q, k, v, attn_mask=causal_lower_right(q.shape[1], k.shape[1]))

    def cached(self, q, k, v, first):
        """A static cache: keys and values of full length, and a boolean mask."""
        capacity = 64 * (k.shape[1] // 64 + 1)
        keys, values = (numpy.zeros((len(a), capacity, a.shape[2]), numpy.float32) for a in (k, v))
        for i in range(first, k.shape[1]):
            keys[:, : i + 1], values[:, : i + 1] = k[:, : i + 1], v[:, : i + 1]
            mask = self.torch.arange(capacity) <= i
            yield self.run(q[:, i - first:][:, :1], keys, values, attn_mask=mask[None])


class Onnxruntime:
    """The operator Attention of ONNX, opset 23."""

    isas = {"avx512": ({}, ()), "avx2": ({}, HASWELL), "sse": ({}, NEHALEM)}

    def __init__(self, threads):
        import onnx
        import onnxruntime
        from onnx import TensorProto, helper

        self.version = onnxruntime.__version__
        self.sessions = {}
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        for name, past, causal in [("attend", False, 0), ("causal", False, 1), ("past", True, 1)]:
            inputs = ["q", "k", "v"] + (["", "past_key", "past_value"] if past else [])
            outputs = ["out"] + (["key", "value"] if past else [])
            node = helper.make_node("Attention", inputs, outputs, is_causal=causal)
            value = lambda n: helper.make_tensor_value_info(n, TensorProto.FLOAT, [None] * 4)
            graph = helper.make_graph([node], name, [value(n) for n in inputs if n], [value(n) for n in outputs])
            model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
            onnx.checker.check_model(model)
            self.sessions[name] = onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def run(self, session, q, k, v, past=()):
        inputs = {n: a[None] for n, a in zip(["q", "k", "v", "past_key", "past_value"], [q, k, v, *past])}
        return self.sessions[session].run(["out"], inputs)[0][0]

    def attend(self, q, k, v):
        return self.run("attend", q, k, v)

    def causal(self, q, k, v):
        past = k.shape[1] - q.shape[1]
        if q.shape[1] == 1:
            return self.attend(q, k, v)
        if past == 0:
            return self.run("causal", q, k, v)
        return self.run("past", q, k[:, past:], v[:, past:], (k[:, :past], v[:, :past]))

    def cached(self, q, k, v, first):
        """past_key and past_value."""
        for i in range(first, k.shape[1]):
            yield self.run("past", q[:, i - first:][:, :1], k[:, i:][:, :1], v[:, i:][:, :1], (k[:, :i], v[:, :i]))


class Openvino:
    """The operation ScaledDotProductAttention, opset 13; float32 arithmetic is asked for."""

    isas = {
        isa: ({"ONEDNN_MAX_CPU_ISA": dnnl}, ())
        for isa, dnnl in (("avx512", "AVX512_CORE"), ("avx2", "AVX2"), ("sse", "SSE41"))
    }

    def __init__(self, threads):
        import openvino
        from openvino import opset13 as op

        self.openvino, self.op = openvino, op
        self.version = openvino.__version__.split("-")[0]
        self.config = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1,
                       "KV_CACHE_PRECISION": "f32"}
        self.models = {}

    def compiled(self, heads, dim, kind):
        if (heads, dim, kind) not in self.models:
            op, shape = self.op, [1, heads, -1, dim]
            f32, i32 = self.openvino.Type.f32, self.openvino.Type.i32
            q, k, v = (op.parameter(shape, f32, name) for name in "qkv")
            inputs, sinks = [q, k, v], []
            if kind == "masked":
                mask = op.parameter([1, 1, -1, -1], f32, "mask")
                inputs.append(mask)
                out = op.scaled_dot_product_attention(q, k, v, attention_mask=mask)
            elif kind == "stateful":
                from openvino.op.util import Variable, VariableInfo

                beam = op.parameter([-1], i32, "beam")
                inputs.append(beam)
                past = []
                for name, new in (("keys", k), ("values", v)):
                    info = VariableInfo()
                    info.data_shape = self.openvino.PartialShape([-1, heads, -1, dim])
                    info.data_type, info.variable_id = self.openvino.Type.f32, name
                    variable = Variable(info)
                    empty = op.constant(numpy.zeros((1, heads, 0, dim), numpy.float32))
                    from openvino import opset6

                    read = opset6.read_value(empty, variable)
                    whole = op.concat([op.gather(read, beam, op.constant(0)), new], 2)
                    sinks.append(opset6.assign(whole, variable))
                    past.append(whole)
                mask = op.parameter([1, 1, -1, -1], f32, "mask")
                inputs.append(mask)
                out = op.scaled_dot_product_attention(q, *past, attention_mask=mask)
            else:
                out = op.scaled_dot_product_attention(q, k, v, causal=kind == "causal")
            results = [op.result(out)]
            model = self.openvino.Model(results, sinks, inputs, kind) if sinks else self.openvino.Model(
                results, inputs, kind)
            compiled = self.openvino.Core().compile_model(model, "CPU", self.config)
            self.models[heads, dim, kind] = compiled.create_infer_request()
        return self.models[heads, dim, kind]

    def run(self, kind, q, k, v, *more):
        request = self.compiled(len(q), q.shape[2], kind)
        inputs = [numpy.ascontiguousarray(a[None]) for a in (q, k, v)] + list(more)
        return numpy.array(request.infer(inputs)[0])[0]

    def attend(self, q, k, v):
        return self.run("attend", q, k, v)

    def causal(self, q, k, v):
        (n, m) = q.shape[1], k.shape[1]
        if n == 1:
            return self.attend(q, k, v)
        if n == m:
            return self.run("causal", q, k, v)
        visible = numpy.arange(m) <= numpy.arange(m - n, m)[:, None]
        return self.run("masked", q, k, v, numpy.where(visible, 0, -numpy.inf).astype(numpy.float32)[None, None])

    def cached(self, q, k, v, first):
        """State variables, which the CPU plugin makes its own KV cache of."""
        self.compiled(len(q), q.shape[2], "stateful").reset_state()
        beam = numpy.zeros(1, numpy.int32)
        for i in range(first, k.shape[1]):
            since = 0 if i == first else i
            now = [a[:, since: i + 1] for a in (k, v)]
            query = numpy.repeat(q[:, i - first:][:, :1], i + 1 - since, axis=1)
            mask = numpy.zeros((1, 1, i + 1 - since, i + 1), numpy.float32)
            yield self.run("stateful", query, *now, beam, mask)[:, -1:]


class Jax:
    """jax.nn.dot_product_attention, compiled."""

    # --xla_cpu_max_isa=AVX2 changes no bit, and a processor without AVX-512 does. Without AVX JAX does not start.
    isas = {"avx512": ({}, ()), "avx2": ({}, HASWELL)}

    def __init__(self, threads):
        if threads == 1:
            os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_cpu_multi_thread_eigen=false"
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        import jax

        self.version = jax.__version__
        self.attention = jax.jit(jax.nn.dot_product_attention, static_argnames=["is_causal"])

    def run(self, q, k, v, **options):
        q, k, v = (a.transpose(1, 0, 2)[None] for a in (q, k, v))
        return numpy.array(self.attention(q, k, v, **options))[0].transpose(1, 0, 2)

    def attend(self, q, k, v):
        return self.run(q, k, v)

    def causal(self, q, k, v):
        (n, m) = q.shape[1], k.shape[1]
        if n == 1:
            return self.attend(q, k, v)
        if n == m:
            return self.run(q, k, v, is_causal=True)
        return self.run(q, k, v, mask=(numpy.arange(m) <= numpy.arange(m - n, m)[:, None])[None, None])

    def cached(self, q, k, v, first):
        """A static cache: keys and values of full length, and key_value_seq_lengths."""
        capacity = 64 * (k.shape[1] // 64 + 1)
        keys, values = (numpy.zeros((len(a), capacity, a.shape[2]), numpy.float32) for a in (k, v))
        for i in range(first, k.shape[1]):
            keys[:, : i + 1], values[:, : i + 1] = k[:, : i + 1], v[:, : i + 1]
            lengths = numpy.array([i + 1], numpy.int32)
            yield self.run(q[:, i - first:][:, :1], keys, values, key_value_seq_lengths=lengths)


LIBRARIES = {"sdpa": Sdpa, "torch": Torch, "onnxruntime": Onnxruntime, "openvino": Openvino, "jax": Jax}
