//! Read and write whose errors name the path; atomic files and folders; path patterns.
