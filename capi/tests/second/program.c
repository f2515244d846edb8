/* Calls two Rust libraries in one program. */

#include "check.h"

size_t second(size_t i);

int main(void) {
    const float a[] = {1, 2, 3};
    float dot = 0;
    CHECK(sdpa_dot(a, a, 3, &dot) == SDPA_OK && dot == 14);
    CHECK(second(1) == 30);
    return failures != 0;
}
