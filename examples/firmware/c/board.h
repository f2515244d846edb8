/* What the program wants of its board. */

#ifndef BOARD_H
#define BOARD_H

/* To the standard output of who runs the board: a debugger or an emulator. */
void board_print(const char *text);

#endif
