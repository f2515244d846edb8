// The KV cache as a C++17 class that owns its storage and throws on errors.
//
//     c++ -std=c++17 decode.cpp $(pkg-config --cflags --libs sdpa-attention) && ./a.out

#include <cmath>
#include <cstdio>
#include <stdexcept>
#include <utility>
#include <vector>

#include "sdpa.h"

namespace {

void check(sdpa_status status) {
    if (status != SDPA_OK) {
        throw std::runtime_error(sdpa_status_string(status));
    }
}

class Cache {
public:
    Cache(std::size_t dim, std::size_t value_dim, std::size_t blocks)
        : storage(sdpa_cache_floats(dim, value_dim, blocks)),
          workspace(sdpa_attention_workspace(dim, value_dim)) {
        check(sdpa_cache_init(&cache, dim, value_dim, storage.data(), storage.size()));
    }

    // The structure points into the storage; moving a vector does not move its elements.
    Cache(Cache &&) = default;
    Cache &operator=(Cache &&) = default;
    Cache(const Cache &) = delete;
    Cache &operator=(const Cache &) = delete;

    std::size_t size() const { return cache.appended - cache.dropped; }

    void append(const std::vector<float> &keys, const std::vector<float> &values) {
        check(sdpa_cache_append(
            &cache, {keys.data(), keys.size() / cache.dim, cache.dim, 0, 0},
            {values.data(), values.size() / cache.value_dim, cache.value_dim, 0, 0}));
    }

    void slide(std::size_t keep) { check(sdpa_cache_slide(&cache, keep)); }

    std::vector<float> attend(const std::vector<float> &queries, const sdpa_options &options) {
        const std::size_t count = queries.size() / cache.dim;
        std::vector<float> out(count * cache.value_dim);
        check(sdpa_cache_attend(&cache, {queries.data(), count, cache.dim, 0, 0}, &options,
                                {out.data(), count, cache.value_dim, 0, 0}, nullptr,
                                workspace.data(), workspace.size()));
        return out;
    }

private:
    std::vector<float> storage, workspace;
    sdpa_cache cache{};
};

}  // namespace

int main() {
    try {
        sdpa_options causal{};
        causal.flags = SDPA_CAUSAL;
        Cache first(4, 1, 2);
        Cache cache = std::move(first);
        float newest = 0;
        for (int token = 0; token < 100; token++) {
            const float x = static_cast<float>(token);
            cache.append({std::sin(x), std::cos(x), std::sin(2 * x), std::cos(2 * x)}, {x});
            newest = cache.attend({std::sin(x), std::cos(x), 0, 0}, causal).at(0);
        }
        cache.slide(1);
        const float query[] = {1, 2, 3, 4};
        const float alone = cache.attend({query, query + SDPA_COUNT(query)}, causal).at(0);
        std::printf("%zu token held, %.3f among all, %.3f alone\n", cache.size(),
                    static_cast<double>(newest), static_cast<double>(alone));
        cache.append({1, 2, 3, 4}, {});  // a key without a value
        return 1;
    } catch (const std::runtime_error &error) {
        std::printf("refused: %s\n", error.what());
        return 0;
    }
}
