// expect: TLE
// why: a stopped process neither computes nor waits for a processor
#include <csignal>
int main() { raise(SIGSTOP); }
