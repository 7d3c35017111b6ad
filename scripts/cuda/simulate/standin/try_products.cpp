// The stand-in's cuBLASLt, tried by itself: each epilogue gives what its name says and nothing else,
// and what the library refuses is refused.
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <functional>
#include <string>
#include <vector>

#include "try.h"

extern "C" {
int cublasLtCreate(void **);
int cublasLtMatrixLayoutCreate(void **, int, uint64_t, uint64_t, int64_t);
int cublasLtMatmulDescCreate(void **, int, int);
int cublasLtMatmulDescSetAttribute(void *, int, const void *, size_t);
int cublasLtMatmulPreferenceCreate(void **);
int cublasLtMatmulPreferenceSetAttribute(void *, int, const void *, size_t);
int cublasLtMatmulAlgoGetHeuristic(void *, void *, void *, void *, void *, void *, void *, int, void *,
                                   int *);
int cublasLtMatmul(void *, void *, const float *, const void *, void *, const void *, void *,
                   const float *, const void *, void *, void *, void *, const void *, void *, size_t,
                   void *);
}

typedef std::vector<float> Floats;

static const int F32 = 0, BF16 = 14, REFUSED = 15, WRONG = 7;
static const unsigned PLAIN = 1, BIAS = 4, GRADIENT_A = 256, GRADIENT_B = 512;

static float *floats(const Floats &numbers) {
    char *at = memory(4 * numbers.size(), one);
    cuMemcpyHtoDAsync_v2(at, (const char *)numbers.data(), 4 * numbers.size(), one);
    return (float *)at;
}

// d [2, 3] = a [2, 4] · bᵀ, b [3, 4], added to what d holds.
struct Product {
    int type_of_bias = F32, type_of_result = F32, leading = 2, rows = 2;
    unsigned scheme = 2, alignment = 16, epilogue = PLAIN;
    float *a, *b, *d, *bias, beta = 1;
    size_t workspace_bytes = 256;
    uint64_t found[12] = {};

    Product() {
        a = floats({1, 2, 3, 4, 5, 6, 7, 8});
        b = floats({1, 0, 2, 0, 1, 3, 1, 1, 0, 2, 2, 1});
        d = floats({10, 20, 30, 40, 50, 60});
        bias = floats({0.5, 0.25, 0.125, 99});
    }

    int run(bool finds = true) {
        void *handle, *operation, *preference, *sides[3];
        int turned = 1, count = 0;
        float alpha = 1;
        cublasLtCreate(&handle);
        cublasLtMatmulDescCreate(&operation, 68, F32);
        cublasLtMatmulDescSetAttribute(operation, 4, &turned, 4);
        cublasLtMatmulDescSetAttribute(operation, 7, &epilogue, 4);
        cublasLtMatmulDescSetAttribute(operation, 8, &bias, 8);
        cublasLtMatmulDescSetAttribute(operation, 26, &type_of_bias, 4);
        cublasLtMatrixLayoutCreate(&sides[0], F32, rows, 4, leading);
        cublasLtMatrixLayoutCreate(&sides[1], F32, 3, 4, 3);
        cublasLtMatrixLayoutCreate(&sides[2], type_of_result, 2, 3, 2);
        cublasLtMatmulPreferenceCreate(&preference);
        cublasLtMatmulPreferenceSetAttribute(preference, 3, &scheme, 4);
        for (int which = 5; which < 9; which++) {
            cublasLtMatmulPreferenceSetAttribute(preference, which, &alignment, 4);
        }
        if (finds) {
            int code = cublasLtMatmulAlgoGetHeuristic(handle, operation, sides[0], sides[1], sides[2],
                                                      sides[2], preference, 1, found, &count);
            if (code) return code;
        }
        char *workspace = memory(workspace_bytes, one);
        int code = cublasLtMatmul(handle, operation, &alpha, a, sides[0], b, sides[1], &beta, d,
                                  sides[2], d, sides[2], found, workspace, workspace_bytes, one);
        cuStreamSynchronize(one);
        return code;
    }

    bool gives(unsigned which, float factor, const Floats &result, const Floats &vector) {
        epilogue = which, beta = factor;
        return run() == 0 && !memcmp(d, result.data(), 24) && !memcmp(bias, vector.data(), 16);
    }
};

static Product changed(const std::function<void(Product &)> &change) {
    Product product;
    product.epilogue = BIAS;
    change(product);
    return product;
}

void try_products() {
    Floats bias = {0.5, 0.25, 0.125, 99};
    // The rows of b: 1 0 1 2, 0 1 1 2, 2 3 0 1.
    Floats plain = {20, 24, 22, 26, 18, 24};
    Floats added = {30, 44, 52, 66, 68, 84};
    Floats with_bias = {20.5, 24.25, 22.5, 26.25, 18.5, 24.25};
    check("a plain product", Product().gives(PLAIN, 0, plain, bias));
    check("one that is added", Product().gives(PLAIN, 1, added, bias));
    check("a bias", Product().gives(BIAS, 0, with_bias, bias));
    check("the gradient of b", Product().gives(GRADIENT_B, 1, added, {4, 4, 6, 99}));
    check("the gradient of a", Product().gives(GRADIENT_A, 1, added, {16, 20, 0.125, 99}));
    check("another type of bias", changed([](Product &p) { p.type_of_bias = BF16; }).run() == REFUSED);
    check("another type of result", changed([](Product &p) {
        p.type_of_result = BF16;
    }).run() == REFUSED);
    check("no bias", changed([](Product &p) { p.bias = nullptr; }).run() == WRONG);
    check("columns in one another", changed([](Product &p) { p.leading = 1; }).run() == WRONG);
    check("sizes that do not fit", changed([](Product &p) { p.rows = 1; }).run() == WRONG);
    check("sums in any order", dies("in any order", [] {
        changed([](Product &p) { p.scheme = 7; }).run();
    }));
    check("addresses out of step", dies("not aligned", [] {
        changed([](Product &p) { p.a++; }).run();
    }));
    check("a bias out of step", dies("no multiple of 16", [] {
        changed([](Product &p) { p.bias++; }).run();
    }));
    check("another product's algorithm", dies("not found for this product", [] {
        Product product = changed([](Product &) {});
        product.run();
        product.epilogue = GRADIENT_B;
        product.run(false);
    }));
}
