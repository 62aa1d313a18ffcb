#include <bits/stdc++.h>
using namespace std;

int main() {
    string text, word;
    cin >> text >> word;
    string all = word + "#" + text;
    vector<int> border(all.size());
    int count = 0;
    for (size_t i = 1; i < all.size(); i++) {
        int k = border[i - 1];
        while (k > 0 && all[i] != all[k]) k = border[k - 1];
        border[i] = k + (all[i] == all[k]);
        count += border[i] == (int)word.size();
    }
    cout << count << endl;
}
