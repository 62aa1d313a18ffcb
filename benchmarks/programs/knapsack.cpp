#include <bits/stdc++.h>
using namespace std;
#define int long long

signed main() {
    int n, capacity;
    cin >> n >> capacity;
    vector<int> best(capacity + 1, 0);
    for (int i = 0; i < n; i++) {
        int weight, value;
        cin >> weight >> value;
        for (int c = capacity; c >= weight; c--) best[c] = max(best[c], best[c - weight] + value);
    }
    cout << best[capacity] << "\n";
}
