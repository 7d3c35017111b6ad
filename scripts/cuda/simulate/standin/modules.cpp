// Modules, functions and launches of the driver. A function is found in the image that it is asked
// of; arguments are copied when it is launched, and pointers among them must point to memory that is
// there when it runs.
#include <string.h>

#include <map>
#include <memory>
#include <mutex>

#include "machine.h"

// What a kernel declares counts as well, which is not known here: up to 8 KiB.
const unsigned DEFAULT_SHARED = 40 << 10, MOST_SHARED = 232448 - (8 << 10);

EXPORT int standin_has_context();
#define NEEDS_CONTEXT                                                                                  \
    if (!standin_has_context()) return INVALID_CONTEXT;

namespace {
struct Function {
    const Kernel *kernel;
    unsigned most_shared = DEFAULT_SHARED;
};
struct Module {
    std::string source, text; // one of ours, or PTX
    std::map<std::string, std::unique_ptr<Function>> functions;
};
std::mutex lock;

typedef std::map<std::string, std::vector<Kernel>> Sources;
Sources &sources() {
    static Sources sources;
    return sources;
}

// Kernels are run one at a time: those of a file share the state of one block.
std::mutex computing;
} // namespace

void add_kernels(const char *source, std::vector<Kernel> kernels) {
    sources()[source] = std::move(kernels);
}

const Kernel *find_kernel(const std::string &source, const std::string &name) {
    for (const Kernel &kernel : sources()[source]) {
        if (kernel.name == name) return &kernel;
    }
    return nullptr;
}

size_t Kernel::offset(size_t index) const {
    size_t at = 0;
    for (size_t i = 0;; i++) {
        size_t alignment = parameters[i].alignment;
        at = (at + alignment - 1) / alignment * alignment;
        if (i == index) return at;
        at += parameters[i].size;
    }
}

EXPORT int cuModuleLoadData(void **handle, const void *image) {
    NEEDS_CONTEXT
    Module *module = new Module;
    module->source = source_of(image);
    if (module->source.empty()) {
        module->text = (const char *)image;
        if (module->text.find(".version") == std::string::npos) die("a module that is not known here");
    }
    *handle = module;
    return SUCCESS;
}

// Modules are kept: of few programs there are many.
EXPORT int cuModuleUnload(void *) {
    NEEDS_CONTEXT
    return SUCCESS;
}

EXPORT int cuModuleGetFunction(void **handle, void *of, const char *name) {
    NEEDS_CONTEXT
    std::lock_guard<std::mutex> guard(lock);
    Module &module = *(Module *)of;
    std::unique_ptr<Function> &found = module.functions[name];
    if (!found) {
        bool is_ours = !module.source.empty();
        const Kernel *kernel = find_kernel(is_ours ? module.source : "candle", name);
        std::string entry = std::string(".entry ") + name + "(";
        if (is_ours ? !kernel : module.text.find(entry) == std::string::npos) return NOT_FOUND;
        if (!kernel) die("candle's kernel %s is not written yet: candle.cpp", name);
        found.reset(new Function{kernel});
    }
    *handle = found.get();
    return SUCCESS;
}

EXPORT int cuFuncSetAttribute(void *of, int attribute, int value) {
    NEEDS_CONTEXT
    if (attribute != 8) die("the function's attribute %d is not known here", attribute);
    if (value < 0 || (unsigned)value > MOST_SHARED) return INVALID_VALUE;
    ((Function *)of)->most_shared = value;
    return SUCCESS;
}

EXPORT int cuFuncGetParamInfo(void *of, size_t index, size_t *offset, size_t *size) {
    const Kernel &kernel = *((Function *)of)->kernel;
    if (index >= kernel.parameters.size()) return INVALID_VALUE;
    *offset = kernel.offset(index);
    if (size) *size = kernel.parameters[index].size;
    return SUCCESS;
}

namespace {
void check_pointers(const Kernel &kernel, const Launch &launch) {
    for (size_t i = 0; i < kernel.parameters.size(); i++) {
        if (!kernel.parameters[i].is_pointer) continue;
        void *pointer;
        memcpy(&pointer, launch.arguments.data() + kernel.offset(i), sizeof pointer);
        if (!pointer) continue;
        std::string what = std::string(kernel.name) + ", argument " + std::to_string(i);
        standin_memory(pointer, 1, what.c_str());
    }
}
} // namespace

EXPORT int cuLaunchKernel(void *of, unsigned x, unsigned y, unsigned z, unsigned threads,
                          unsigned threads_y, unsigned threads_z, unsigned shared, void *stream,
                          void **arguments, void **extra) {
    NEEDS_CONTEXT
    Function &function = *(Function *)of;
    const Kernel &kernel = *function.kernel;
    if (!x || !y || !z || x > 0x7fffffff || y > 65535 || z > 65535) return INVALID_VALUE;
    if (!threads || threads > 1024 || shared > function.most_shared) return INVALID_VALUE;
    if (threads_y != 1 || threads_z != 1 || extra) die("%s: a launch of this kind", kernel.name);
    Launch launch = {{x, y, z}, threads, shared, {}};
    for (size_t i = 0; i < kernel.parameters.size(); i++) {
        const unsigned char *from = (const unsigned char *)arguments[i];
        launch.arguments.resize(kernel.offset(i));
        launch.arguments.insert(launch.arguments.end(), from, from + kernel.parameters[i].size);
    }
    enqueue(stream, kernel.name, [&kernel, launch] {
        check_pointers(kernel, launch);
        std::lock_guard<std::mutex> guard(computing);
        kernel.run(launch);
    });
    return SUCCESS;
}
