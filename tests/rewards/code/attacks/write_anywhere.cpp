// expect: AC
// why: nothing is writable, through links and .. neither
#include <cstdio>
#include <initializer_list>
#include <fcntl.h>
#include <string>
#include <sys/stat.h>
#include <unistd.h>
int main() {
    (void)!symlink("/", "/tmp/root");
    for (std::string folder : {"", "/tmp", "/dev", "/lib64", "/etc", "/usr", "/usr/lib", "/tmp/root",
                               "/tmp/../../..", "/var/tmp"}) {
        if (open((folder + "/mark").c_str(), O_CREAT | O_RDWR, 0666) >= 0)
            printf("LEAK file in %s/\n", folder.c_str());
        if (mkdir((folder + "/folder").c_str(), 0777) == 0)
            printf("LEAK folder in %s/\n", folder.c_str());
    }
    for (const char *path : {"/a.out", "/stub", "/lib64/ld-linux-x86-64.so.2"})
        if (open(path, O_WRONLY) >= 0 || chmod(path, 0777) == 0 || unlink(path) == 0)
            printf("LEAK %s\n", path);
    puts("3");
}
