// The kernels of one .cu file: SOURCE is its path, NAME what the program calls it, and NAMES a file
// with KERNEL_NAME(kernel) for each kernel in it, which the build takes from the preprocessed source.
#include "device.cuh"

#include "kernels.h"

// Files may use a name for different things.
namespace {
#include SOURCE

struct OfFile {
    OfFile() {
        auto call = [](const Launch &how, auto function, auto... arguments) {
            Place grid = {how.grid[0], how.grid[1], how.grid[2]};
            launch(function, grid, how.threads, how.shared, arguments...);
        };
        std::vector<Kernel> kernels;
#define KERNEL_NAME(name) kernels.push_back(describe(#name, name, call));
#include NAMES
        add_kernels(NAME, std::move(kernels));
    }
} of_file;
} // namespace
