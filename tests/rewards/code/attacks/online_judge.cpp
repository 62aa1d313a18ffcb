// expect: AC
// why: contest judges define ONLINE_JUDGE, and templates leave out with it what only works at home
#ifndef ONLINE_JUDGE
#include "debug.h"
#endif
#include <bits/stdc++.h>
int main() {
#ifndef ONLINE_JUDGE
    freopen("input.txt", "r", stdin);
#endif
    long a, b;
    std::cin >> a >> b;
    std::cout << a + b << std::endl;
}
