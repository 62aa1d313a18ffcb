// expect: CE
// why: templates that double at each step
template <int N, int M> struct T { static const long v = T<N - 1, 2 * M>::v + T<N - 1, 2 * M + 1>::v; };
template <int M> struct T<0, M> { static const long v = M; };
int main() { return T<26, 1>::v; }
