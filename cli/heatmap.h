/* heatmap.h - attention weights as a picture. */
#ifndef QKV_CLI_HEATMAP_H
#define QKV_CLI_HEATMAP_H

#include "problem.h"

/* Computes the weights of the chosen heads of one sequence and draws them to options->heatmap.
 * problem needs no outputs; it is not changed.  CLI_DONE or CLI_WRONG. */
int cli_heatmap(const cli_problem *problem, const cli_options *options);

/* Cells of one head: [rows][columns] of the picture.  A cell is the largest weight of a square of
 * block x block tokens; NaN if one of them is NaN. */
typedef struct cli_panel {
    int64_t head;
    double *cells;
} cli_panel;

typedef struct cli_picture {
    int64_t sequence, n_q, n_k; /* tokens */
    int64_t block, rows, columns;
    int64_t n_panels;
    cli_panel *panels;
    char **labels_k, **labels_q; /* NULL: numbers */
} cli_picture;

/* Sets block, rows and columns from the tokens. */
void cli_picture_size(cli_picture *picture);

/* The picture as SVG text: *text is the caller's to free.  False if memory runs out. */
int cli_draw(const cli_picture *picture, char **text, size_t *bytes);

#endif
