// Which .cu file a fatbin comes from: that of the folder STANDIN_FATBINS (the build's OUT_DIR) whose
// bytes it has.
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <fstream>
#include <iterator>

#include "machine.h"

const uint32_t MAGIC = 0xba55ed50;

namespace {
struct Image {
    std::string name, bytes;
};

std::vector<Image> read_all() {
    const char *folder = getenv("STANDIN_FATBINS");
    DIR *listing = folder ? opendir(folder) : nullptr;
    if (!listing) die("STANDIN_FATBINS must name the folder of the build's fatbins");
    std::vector<Image> images;
    while (dirent *entry = readdir(listing)) {
        std::string name = entry->d_name;
        size_t dot = name.find(".fatbin");
        if (dot == std::string::npos) continue;
        std::ifstream file(folder + ("/" + name), std::ios::binary);
        std::istreambuf_iterator<char> from(file), to;
        images.push_back({name.substr(0, dot), std::string(from, to)});
    }
    closedir(listing);
    return images;
}
} // namespace

std::string source_of(const void *image) {
    uint32_t magic;
    uint64_t bytes;
    memcpy(&magic, image, 4);
    if (magic != MAGIC) return "";
    memcpy(&bytes, (const char *)image + 8, 8);
    static const std::vector<Image> images = read_all();
    for (const Image &known : images) {
        // A file may hold several, one after the other: the first one's size is enough to compare.
        if (known.bytes.size() < 16 + bytes) continue;
        if (!memcmp(known.bytes.data(), image, 16 + bytes)) return known.name;
    }
    die("a fatbin that is none of those in STANDIN_FATBINS");
}
