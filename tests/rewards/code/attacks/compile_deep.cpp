// expect: CE
// why: 20 000 open casts: the compiler proper reaches its own CPU limit, and g++ outlives it
#define A (int)((int)((int)((int)((int)((int)((int)((int)((int)((int)(
#define B A A A A A A A A A A
#define C B B B B B B B B B B
#define D C C C C C C C C C C
int main() { return D D 1; }
