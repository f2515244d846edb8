// Debian's libsdpa, a solver of semidefinite programs, and this library in one program.

#include <sdpa.h>
#include <sdpa_call.h>

#include <cmath>
#include <cstdio>

int main() {
    // Minimise x subject to x >= 2: F1 * x - F0 >= 0.
    SDPA problem;
    problem.setParameterType(SDPA::PARAMETER_DEFAULT);
    problem.inputConstraintNumber(1);
    problem.inputBlockNumber(1);
    problem.inputBlockSize(1, 1);
    problem.inputBlockType(1, SDPA::SDP);
    problem.initializeUpperTriangleSpace();
    problem.inputCVec(1, 1);
    problem.inputElement(0, 1, 1, 1, 2);
    problem.inputElement(1, 1, 1, 1, 1);
    problem.initializeUpperTriangle();
    problem.initializeSolve();
    problem.solve();
    const double x = problem.getResultXVec()[0];
    problem.terminate();

    const float a[] = {1, 2, 3};
    float dot = 0;
    const sdpa_status status = sdpa_dot(a, a, SDPA_COUNT(a), &dot);
    std::printf("x %.3f, dot %.0f, %s\n", x, static_cast<double>(dot), sdpa_status_string(status));
    return std::fabs(x - 2) > 1e-6 || dot != 14;
}
