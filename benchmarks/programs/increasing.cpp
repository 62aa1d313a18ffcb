#include <bits/stdc++.h>
using namespace std;

int main() {
    int n;
    scanf("%d", &n);
    vector<int> ends;
    for (int i = 0; i < n; i++) {
        int x;
        scanf("%d", &x);
        auto place = lower_bound(ends.begin(), ends.end(), x);
        if (place == ends.end()) ends.push_back(x);
        else *place = x;
    }
    printf("%d\n", (int)ends.size());
}
