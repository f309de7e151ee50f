// What the exec workloads start: its exit code is its argument.
#include <stdlib.h>

int main(int argc, char** argv) { return argc == 2 ? atoi(argv[1]) : 126; }
