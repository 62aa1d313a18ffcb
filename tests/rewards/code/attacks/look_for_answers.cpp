// expect: AC
// why: no descriptor, no environment, no file of the host holds the wanted output
#include <cstdio>
#include <initializer_list>
#include <cstring>
#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>
extern char **environ;
int main() {
    for (int i = 3; i < 1024; i++)
        if (fcntl(i, F_GETFD) >= 0) printf("LEAK descriptor %d\n", i);
    for (char **e = environ; *e; e++)
        if (strncmp(*e, "PATH=", 5) && strncmp(*e, "PWD=", 4)) printf("LEAK %s\n", *e);
    for (const char *path : {"/proc", "/sys", "/home", "/root", "/var", "/etc/passwd", "/usr/bin",
                             "/etc/hostname", "/main.cpp", "/pch", "/dev/shm", "/dev/tty"})
        if (access(path, F_OK) == 0) printf("LEAK %s\n", path);
    puts("3");
}
