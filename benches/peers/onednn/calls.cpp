// Matrix product and softmax of oneDNN 2 and 3, for src/peers/onednn.rs. Primitives and their memory objects are made
// once; a call sets pointers and executes.

#include <dnnl.hpp>

#include <cstdint>
#include <unordered_map>
#ifdef _OPENMP
#include <omp.h>
#endif

using namespace dnnl;
using Dims = memory::dims;

namespace {

constexpr auto f32 = memory::data_type::f32;

struct Call {
    engine on{engine::kind::cpu, 0};
    stream queue{on};
    primitive step;
    std::unordered_map<int, memory> arguments;

    memory::desc dense(int64_t rows, int64_t cols) { return {Dims{rows, cols}, f32, Dims{cols, 1}}; }

    void argument(int name, const memory::desc &of) {
        arguments.emplace(name, memory(of, on, nullptr));
    }

    void set(int name, const float *data) {
        arguments.at(name).set_data_handle(const_cast<float *>(data));
    }

    void run() {
        step.execute(queue, arguments);
        queue.wait();
    }
};

} // namespace

extern "C" {

int peer_onednn_version() { return 100 * dnnl_version()->major + dnnl_version()->minor; }

// out (m x n) = a (m x k, dense) * b (k x n, with strides); NULL if there is no such primitive.
Call *peer_onednn_product(int64_t m, int64_t n, int64_t k, int64_t b_row, int64_t b_col) try {
#ifdef _OPENMP
    omp_set_num_threads(1);
#endif
    auto *call = new Call;
    memory::desc a = call->dense(m, k), b(Dims{k, n}, f32, Dims{b_row, b_col}), out = call->dense(m, n);
#if DNNL_VERSION_MAJOR >= 3
    call->step = matmul(matmul::primitive_desc(call->on, a, b, out));
#else
    call->step = matmul(matmul::primitive_desc(matmul::desc(a, b, out), call->on));
#endif
    call->argument(DNNL_ARG_SRC, a);
    call->argument(DNNL_ARG_WEIGHTS, b);
    call->argument(DNNL_ARG_DST, out);
    return call;
} catch (const error &) {
    return nullptr;
}

void peer_onednn_run_product(Call *call, const float *a, const float *b, float *out) {
    call->set(DNNL_ARG_SRC, a);
    call->set(DNNL_ARG_WEIGHTS, b);
    call->set(DNNL_ARG_DST, out);
    call->run();
}

// Softmax along `axis` of a dense matrix.
Call *peer_onednn_softmax(int64_t rows, int64_t cols, int axis) try {
#ifdef _OPENMP
    omp_set_num_threads(1);
#endif
    auto *call = new Call;
    memory::desc x = call->dense(rows, cols);
    constexpr auto kind = prop_kind::forward_inference;
#if DNNL_VERSION_MAJOR >= 3
    constexpr auto algorithm = algorithm::softmax_accurate;
    call->step = softmax_forward(softmax_forward::primitive_desc(call->on, kind, algorithm, x, x, axis));
#else
    call->step = softmax_forward(softmax_forward::primitive_desc({kind, x, axis}, call->on));
#endif
    call->argument(DNNL_ARG_SRC, x);
    call->argument(DNNL_ARG_DST, x);
    return call;
} catch (const error &) {
    return nullptr;
}

void peer_onednn_run_softmax(Call *call, const float *x, float *out) {
    call->set(DNNL_ARG_SRC, x);
    call->set(DNNL_ARG_DST, out);
    call->run();
}

void peer_onednn_drop(Call *call) { delete call; }
}
