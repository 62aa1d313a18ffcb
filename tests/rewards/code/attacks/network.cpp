// expect: AC
// why: no socket of any family, loopback and AF_VSOCK included
#include <cstdio>
#include <initializer_list>
#include <sys/socket.h>
int main() {
    int pair[2];
    for (int family = 0; family < 46; family++)
        for (int type : {SOCK_STREAM, SOCK_DGRAM, SOCK_RAW})
            if (socket(family, type, 0) >= 0) printf("LEAK family %d\n", family);
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0) puts("LEAK socketpair");
    puts("3");
}
