// The functions of cuBLASLt that the program calls: products that end in a bias or in its gradient.
// What NVIDIA's table of types, the layouts and the epilogue forbid is refused with the code that the
// library gives; what it would not notice (an algorithm of another problem, addresses that are less
// aligned than the heuristics were told, sums that may be added up in any order) ends the process.
// Heuristics find an algorithm for all that is allowed; for no epilogue where STANDIN_EPILOGUES=none.
#include <stdlib.h>

#include "products.h"

const unsigned DEFAULT = 1, BIAS = 4, GRADIENT_A = 256, GRADIENT_B = 512;
const unsigned IN_PLACE = 1, IN_TYPE_OF_RESULT = 4, ALL_SCHEMES = 7;
const int TRANSPOSE_A = 3, TRANSPOSE_B = 4, EPILOGUE = 7, BIAS_POINTER = 8, BIAS_TYPE = 26;
const int WORKSPACE = 1, REDUCTION = 3, ALIGNMENT = 5, NUM_ALIGNMENTS = 4;
const uint64_t FOUND = 0x706f6c6f67697565;

namespace {
struct Layout {
    int type;
    uint64_t rows, columns;
    int64_t leading;
    bool operator==(const Layout &other) const {
        return type == other.type && rows == other.rows && columns == other.columns &&
               leading == other.leading;
    }
    Matrix at(const void *address, int operation) const {
        return {address, type, (int)rows, (int)columns, (int)leading, operation == TURNED};
    }
};

struct Operation {
    int compute, scale, turned[2], bias_type;
    unsigned epilogue;
    const void *bias;
};

struct Preference {
    uint64_t workspace_bytes;
    unsigned reduction, alignments[NUM_ALIGNMENTS]; // of a, b, c, d
};

// As the library lays them out; the first word of an algorithm says that it was found, the second what
// for, the third how aligned addresses are, the fourth what workspace it takes.
struct Algorithm {
    uint64_t found, problem, alignments, workspace_bytes, unused[4];
};
struct Heuristic {
    Algorithm algorithm;
    size_t workspace_bytes;
    int state;
    float waves;
    int reserved[4];
};

struct Problem {
    Operation operation;
    Layout a, b, d;
    int m() const { return d.rows; }
    int k() const { return operation.turned[0] ? a.rows : a.columns; }

    // What the library says to it.
    int verdict() const {
        const Operation &op = operation;
        for (const Layout *layout : {&a, &b, &d}) {
            if (!layout->rows || !layout->columns || layout->leading < (int64_t)layout->rows) {
                return BAD_VALUE;
            }
        }
        uint64_t rows = op.turned[0] ? a.columns : a.rows, inner = op.turned[1] ? b.columns : b.rows;
        uint64_t columns = op.turned[1] ? b.rows : b.columns;
        if (rows != d.rows || columns != d.columns || inner != (uint64_t)k()) return BAD_VALUE;
        bool is_tf32 = op.compute == COMPUTE_TF32;
        if (!is_tf32 && op.compute != COMPUTE_32F) return NOT_SUPPORTED;
        if (op.scale != F32 || a.type != b.type || !is_known(a.type)) return NOT_SUPPORTED;
        if (is_tf32 ? a.type != F32 || d.type != F32 : d.type != a.type && d.type != F32) {
            return NOT_SUPPORTED;
        }
        if (op.epilogue == DEFAULT) return SUCCESS;
        if (op.epilogue != BIAS && op.epilogue != GRADIENT_A && op.epilogue != GRADIENT_B) {
            die("the epilogue %u is not known here", op.epilogue);
        }
        if (!op.bias) return BAD_VALUE;
        return op.bias_type == d.type || op.bias_type == -1 ? SUCCESS : NOT_SUPPORTED;
    }

    uint64_t hash() const {
        uint64_t sum = 0xcbf29ce484222325;
        auto take = [&](uint64_t word) { sum = (sum ^ word) * 0x100000001b3; };
        for (const Layout *layout : {&a, &b, &d}) {
            take(layout->type);
            take(layout->rows);
            take(layout->columns);
            take(layout->leading);
        }
        const Operation &op = operation;
        for (int word : {op.compute, op.turned[0], op.turned[1], op.bias_type, (int)op.epilogue}) {
            take(word);
        }
        return sum;
    }
};

unsigned alignment_of(const void *at) {
    return std::min<uintptr_t>(256, (uintptr_t)at & -(uintptr_t)at);
}

template <typename T> int set(T *to, const void *value, size_t bytes) {
    if (!value || bytes != sizeof(T)) return BAD_VALUE;
    memcpy(to, value, bytes);
    return SUCCESS;
}

// The sums of the rows of op(a), or of the columns of op(b), over k.
void sum_gradient(const Matrix &side, bool of_a, int k, int type, void *to) {
    std::vector<float> numbers = unpacked(side, of_a, false);
    size_t count = numbers.size() / k;
    for (size_t i = 0; i < count; i++) {
        float sum = 0;
        for (int j = 0; j < k; j++) sum += numbers[i * k + j];
        set_number(to, type, i, sum);
    }
}

void run(const Problem &problem, const void *a, const void *b, void *d, float alpha, float beta,
         void *workspace, size_t workspace_bytes) {
    const Operation &op = problem.operation;
    Matrix left = problem.a.at(a, op.turned[0]), right = problem.b.at(b, op.turned[1]);
    Matrix result = problem.d.at(d, AS_IT_LIES);
    size_t length = op.epilogue == GRADIENT_B ? result.columns : result.rows;
    if (op.epilogue != DEFAULT) standin_memory(op.bias, length * result.width(), "bias");
    if (workspace_bytes) {
        standin_memory(workspace, workspace_bytes, "workspace");
        memset(workspace, 0xff, workspace_bytes);
    }
    bool of_a = op.epilogue == GRADIENT_A, of_b = op.epilogue == GRADIENT_B;
    if (of_a || of_b) {
        sum_gradient(of_a ? left : right, of_a, problem.k(), result.type, (void *)op.bias);
    }
    multiply(left, right, result, problem.k(), alpha, beta, op.compute == COMPUTE_TF32,
             op.epilogue == BIAS ? op.bias : nullptr);
}
} // namespace

EXPORT int cublasLtCreate(void **handle) {
    if (!standin_has_context()) return NOT_READY_YET;
    *handle = new int(0);
    return SUCCESS;
}

EXPORT int cublasLtMatrixLayoutCreate(Layout **layout, int type, uint64_t rows, uint64_t columns,
                                      int64_t leading) {
    *layout = new Layout{type, rows, columns, leading};
    return SUCCESS;
}

EXPORT int cublasLtMatrixLayoutDestroy(Layout *layout) {
    delete layout;
    return SUCCESS;
}

EXPORT int cublasLtMatmulDescCreate(Operation **operation, int compute, int scale) {
    *operation = new Operation{compute, scale, {AS_IT_LIES, AS_IT_LIES}, -1, DEFAULT, nullptr};
    return SUCCESS;
}

EXPORT int cublasLtMatmulDescDestroy(Operation *operation) {
    delete operation;
    return SUCCESS;
}

EXPORT int cublasLtMatmulDescSetAttribute(Operation *operation, int which, const void *value,
                                          size_t bytes) {
    switch (which) {
    case TRANSPOSE_A: return set(&operation->turned[0], value, bytes);
    case TRANSPOSE_B: return set(&operation->turned[1], value, bytes);
    case EPILOGUE: return set(&operation->epilogue, value, bytes);
    case BIAS_POINTER: return set(&operation->bias, value, bytes);
    case BIAS_TYPE: return set(&operation->bias_type, value, bytes);
    }
    die("the attribute %d of a product is not known here", which);
}

EXPORT int cublasLtMatmulPreferenceCreate(Preference **preference) {
    *preference = new Preference{0, ALL_SCHEMES, {256, 256, 256, 256}};
    return SUCCESS;
}

EXPORT int cublasLtMatmulPreferenceDestroy(Preference *preference) {
    delete preference;
    return SUCCESS;
}

EXPORT int cublasLtMatmulPreferenceSetAttribute(Preference *preference, int which, const void *value,
                                                size_t bytes) {
    if (which == WORKSPACE) return set(&preference->workspace_bytes, value, bytes);
    if (which == REDUCTION) return set(&preference->reduction, value, bytes);
    int matrix = which - ALIGNMENT;
    if (matrix < 0 || matrix >= NUM_ALIGNMENTS) die("the preference %d is not known here", which);
    return set(&preference->alignments[matrix], value, bytes);
}

EXPORT int cublasLtMatmulAlgoGetHeuristic(void *handle, const Operation *operation, const Layout *a,
                                          const Layout *b, const Layout *c, const Layout *d,
                                          const Preference *preference, int requested,
                                          Heuristic *results, int *count) {
    if (!handle || !operation || !a || !b || !c || !d || requested < 1 || !results || !count) {
        return BAD_VALUE;
    }
    *count = 0;
    Problem problem = {*operation, *a, *b, *d};
    int verdict = problem.verdict();
    if (verdict == SUCCESS && !(*c == *d)) verdict = BAD_VALUE;
    if (verdict != SUCCESS) return verdict;
    const char *epilogues = getenv("STANDIN_EPILOGUES");
    if (operation->epilogue != DEFAULT && epilogues && !strcmp(epilogues, "none")) return NOT_SUPPORTED;
    if (preference->reduction & (IN_PLACE | IN_TYPE_OF_RESULT)) {
        die("parts of sums may be added in any order, or rounded");
    }
    uint64_t alignments = operation->epilogue == DEFAULT ? 1 : alignment_of(operation->bias);
    for (unsigned alignment : preference->alignments) alignments = alignments << 12 | alignment;
    // Long sums are cut into parts.
    uint64_t parts = (uint64_t)problem.k() > 4 * d->rows ? d->rows * d->columns * 4 : 0;
    uint64_t bytes = std::min(parts, preference->workspace_bytes);
    *results = {{FOUND, problem.hash(), alignments, bytes, {}}, bytes, SUCCESS, 1.0f, {}};
    *count = 1;
    return SUCCESS;
}

EXPORT int cublasLtMatmul(void *handle, const Operation *operation, const float *alpha, const void *a,
                          const Layout *layout_a, const void *b, const Layout *layout_b,
                          const float *beta, const void *c, const Layout *layout_c, void *d,
                          const Layout *layout_d, const Algorithm *algorithm, void *workspace,
                          size_t workspace_bytes, void *stream) {
    if (!standin_has_context()) return NOT_READY_YET;
    if (!handle || !operation || !alpha || !beta || !a || !b || !c || !d) return BAD_VALUE;
    Problem problem = {*operation, *layout_a, *layout_b, *layout_d};
    int verdict = problem.verdict();
    if (verdict != SUCCESS) return verdict;
    if (!algorithm || algorithm->found != FOUND || algorithm->problem != problem.hash()) {
        die("an algorithm that was not found for this product");
    }
    uint64_t alignments = algorithm->alignments;
    for (const void *at : {(const void *)d, c, b, a, operation->bias}) {
        unsigned expected = alignments & 0xfff;
        if (expected && (uintptr_t)at % expected) {
            die("%p is not aligned to the %u bytes that the heuristics were told", at, expected);
        }
        alignments >>= 12;
    }
    if (c != d || !(*layout_c == *layout_d)) die("only products in place are known here");
    if (operation->epilogue != DEFAULT && (uintptr_t)operation->bias % 16) {
        die("a bias at %p, which is no multiple of 16", operation->bias);
    }
    size_t needed = algorithm->workspace_bytes;
    bool has_place = workspace && (uintptr_t)workspace % 256 == 0;
    if (workspace_bytes < needed || (needed && !has_place)) return BAD_VALUE;
    float factor = *alpha, old = *beta;
    auto work = [=] { run(problem, a, b, d, factor, old, workspace, needed); };
    enqueue(stream, "a matrix product with an epilogue", work);
    return SUCCESS;
}
