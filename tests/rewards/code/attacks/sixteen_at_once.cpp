// expect: AC
// why: process 1 of the box does not count among the sixteen
// want: 15
#include <iostream>
#include <pthread.h>
#include <unistd.h>
int main() {
    int count = 0;
    for (int i = 0; i < 16; i++) {
        pthread_t thread;
        pthread_attr_t small;
        pthread_attr_init(&small);
        pthread_attr_setstacksize(&small, 64 << 10);
        auto wait = [](void *) -> void * { return pause(), nullptr; };
        count += !pthread_create(&thread, &small, wait, nullptr);
    }
    std::cout << count << std::endl;
}
