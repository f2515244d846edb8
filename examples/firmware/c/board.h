/* The functions of the board that the program uses. */

#ifndef BOARD_H
#define BOARD_H

/* Prints to the standard output of the debugger or emulator. */
void board_print(const char *text);

#endif
