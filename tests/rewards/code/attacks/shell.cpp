// expect: AC
// why: there is nothing to execute but the program itself
#include <cstdio>
#include <initializer_list>
#include <cstdlib>
#include <unistd.h>
int main() {
    if (system("true") == 0) puts("LEAK shell");
    for (const char *path : {"/bin/sh", "/usr/bin/env", "/usr/bin/g++", "/usr/bin/python3"})
        if (access(path, F_OK) == 0) printf("LEAK %s\n", path);
    puts("3");
}
