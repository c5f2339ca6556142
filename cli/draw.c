// clang-format off
/*
 * draw.c - heads of attention weights as SVG.
 *
 *      title                                  A cell is query (row) by key (column).  Small ones
 *      words of the keys, upright             have one <rect> a cell with the number as a tooltip,
 *   q  +-----------+  +-----------+  legend   larger ones a <path> for each of the 32 colours.
 *   u  |  head 0   |  |  head 3   |   #       Above 256 tokens a cell is the largest weight of a
 *   e  +-----------+  +-----------+   #       square of tokens, because a mean hides single peaks.
 *
 * A weight of exactly 0 is grey and not white: hidden keys stay apart from keys of little weight.
 */
// clang-format on
#include "heatmap.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LEVELS        32
#define MOST_CELLS    256  /* a side, before tokens are taken together */
#define MOST_TOOLTIPS 4096 /* cells a panel */
#define MOST_WORDS    64   /* tokens a side that are written out one by one */
#define LETTER        6.6  /* width of a letter at 11 px, on average over sans-serif fonts */
#define LONGEST_WORD  16   /* letters shown */
#define WIDEST        1400 /* pixels of panels side by side */

/* ---- text --------------------------------------------------------------------------------- */

typedef struct canvas {
    char *text;
    size_t used, room;
    int failed;
} canvas;

__attribute__((format(printf, 2, 3))) static void put(canvas *c, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    va_list again;
    va_copy(again, list);
    const int n = vsnprintf(NULL, 0, format, list);
    va_end(list);
    if (!c->failed && c->used + (size_t)n + 1 > c->room) {
        const size_t room = (c->used + (size_t)n + 1) * 2;
        char *larger = realloc(c->text, room);
        c->failed = larger == NULL;
        if (larger != NULL) {
            c->text = larger;
            c->room = room;
        }
    }
    if (!c->failed)
        c->used += (size_t)vsnprintf(c->text + c->used, c->room - c->used, format, again);
    va_end(again);
}

/* Bytes of the UTF-8 letter at p, or 0 if there is none (then one byte is skipped). */
static int letter_bytes(const unsigned char *p)
{
    const int n = *p < 0x80                 ? 1
                  : *p >= 0xc2 && *p < 0xe0 ? 2
                  : (*p & 0xf0) == 0xe0     ? 3
                  : *p >= 0xf0 && *p < 0xf5 ? 4
                                            : 0;
    for (int i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    /* Surrogates, overlong forms and the two non-characters are not XML. */
    if ((n == 3 && ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
                    (p[0] == 0xef && p[1] == 0xbf && p[2] > 0xbd))) ||
        (n == 4 && ((p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))))
        return 0;
    return n;
}

/* A word as XML text, cut to LONGEST_WORD letters if cut is set. */
static void put_word(canvas *c, const char *word, int cut)
{
    const unsigned char *p = (const unsigned char *)word;
    for (int letters = 0; *p != '\0'; letters++) {
        const int n = letter_bytes(p);
        if (cut && letters == LONGEST_WORD) {
            put(c, "\xe2\x80\xa6");
            return;
        }
        if (n == 0 || (n == 1 && *p < ' '))
            put(c, "\xef\xbf\xbd");
        else if (*p == '<' || *p == '&')
            put(c, *p == '<' ? "&lt;" : "&amp;");
        else
            put(c, "%.*s", n, (const char *)p);
        p += n > 0 ? n : 1;
    }
}

static int word_letters(const char *word)
{
    int letters = 0;
    for (const char *p = word; *p != '\0'; p++)
        letters += ((unsigned char)*p & 0xc0) != 0x80;
    return letters < LONGEST_WORD ? letters : LONGEST_WORD + 1;
}

/* ---- colour ------------------------------------------------------------------------------- */

/* From pale yellow over green to dark blue: lightness falls evenly, so the order is also seen in
 * grey print and by colour-blind readers. */
static void put_colour(canvas *c, int level)
{
    static const int stops[6][3] = {{255, 253, 222}, {199, 233, 180}, {127, 205, 187},
                                    {65, 160, 193},  {37, 90, 164},   {16, 29, 88}};
    const double x = (double)level / (LEVELS - 1) * 5;
    const int i = x < 5 ? (int)x : 4;
    int rgb[3];
    for (int k = 0; k < 3; k++)
        rgb[k] = (int)lround(stops[i][k] + (x - i) * (stops[i + 1][k] - stops[i][k]));
    put(c, "#%02x%02x%02x", rgb[0], rgb[1], rgb[2]);
}

/* Level of a weight, -1 for exactly 0, -2 for NaN. */
static int level_of(double w, double top)
{
    if (isnan(w))
        return -2;
    if (w == 0)
        return -1;
    const int level = (int)(w / top * LEVELS);
    return level < 0 ? 0 : level < LEVELS ? level : LEVELS - 1;
}

static void put_class(canvas *c, int level)
{
    if (level < 0)
        put(c, level == -1 ? "zero" : "nan");
    else
        put(c, "w%d", level);
}

/* ---- geometry ----------------------------------------------------------------------------- */

typedef struct geometry {
    double cell;           /* pixels */
    double width, height;  /* of a panel's cells */
    double left, top, gap; /* room for the words */
    int64_t across, down;  /* panels */
    double top_weight;     /* of the colour scale */
} geometry;

void cli_picture_size(cli_picture *picture)
{
    const int64_t longest = picture->n_q > picture->n_k ? picture->n_q : picture->n_k;
    picture->block = (longest + MOST_CELLS - 1) / MOST_CELLS;
    picture->rows = (picture->n_q + picture->block - 1) / picture->block;
    picture->columns = (picture->n_k + picture->block - 1) / picture->block;
}

static double longest_label(char **labels, int64_t n)
{
    int most = 4; /* numbers */
    for (int64_t i = 0; labels != NULL && i < n && n <= MOST_WORDS; i++)
        most = word_letters(labels[i]) > most ? word_letters(labels[i]) : most;
    return most * LETTER;
}

static double largest_cell(const cli_picture *picture)
{
    double top = 0;
    for (int64_t p = 0; p < picture->n_panels; p++)
        for (int64_t n = 0; n < picture->rows * picture->columns; n++)
            if (picture->panels[p].cells[n] > top)
                top = picture->panels[p].cells[n];
    return top > 0 ? top : 1;
}

static geometry measure(const cli_picture *picture)
{
    geometry g = {0};
    const int64_t side = picture->rows > picture->columns ? picture->rows : picture->columns;
    g.cell = side <= 12    ? 32
             : side <= 24  ? 24
             : side <= 40  ? 18
             : side <= 64  ? 14
             : side <= 128 ? 6
                           : 3;
    g.width = g.cell * (double)picture->columns;
    g.height = g.cell * (double)picture->rows;
    g.left = 34 + longest_label(picture->labels_q, picture->n_q);
    g.top = 40 + longest_label(picture->labels_k, picture->n_k);
    g.gap = 24;
    const int64_t fit = (int64_t)(WIDEST / (g.left + g.width + g.gap));
    g.across = picture->n_panels < fit ? picture->n_panels : fit > 0 ? fit : 1;
    g.down = (picture->n_panels + g.across - 1) / g.across;
    g.top_weight = largest_cell(picture);
    return g;
}

/* ---- parts of the picture ----------------------------------------------------------------- */

static void put_label(canvas *c, char **labels, int64_t token, int cut)
{
    if (labels != NULL)
        put_word(c, labels[token], cut);
    else
        put(c, "%lld", (long long)token);
}

static void draw_cells_apart(canvas *c, const cli_picture *picture, const cli_panel *panel,
                             const geometry *g)
{
    for (int64_t i = 0; i < picture->rows; i++)
        for (int64_t j = 0; j < picture->columns; j++) {
            const double w = panel->cells[i * picture->columns + j];
            const int level = level_of(w, g->top_weight);
            put(c, "<rect x=\"%g\" y=\"%g\" width=\"%g\" height=\"%g\" class=\"",
                g->cell * (double)j, g->cell * (double)i, g->cell, g->cell);
            put_class(c, level);
            put(c, "\"><title>");
            put_label(c, picture->labels_q, i, 0);
            put(c, " \xe2\x86\x92 ");
            put_label(c, picture->labels_k, j, 0);
            put(c, ": %.4g</title></rect>\n", w);
        }
}

/* The cells of one level as runs along the rows. */
static void put_runs(canvas *c, const signed char *levels, int64_t rows, int64_t columns, int level)
{
    for (int64_t i = 0; i < rows; i++) {
        const signed char *row = levels + i * columns;
        for (int64_t j = 0, end; j < columns; j = end) {
            for (end = j + 1; end < columns && row[end] == row[j];)
                end++;
            if (row[j] == level)
                put(c, "M%lld %lldh%lldv1h-%lldz", (long long)j, (long long)i, (long long)(end - j),
                    (long long)(end - j));
        }
    }
}

/* One path a colour; zero is the background. */
static void draw_cells_together(canvas *c, const cli_picture *picture, const cli_panel *panel,
                                const geometry *g)
{
    const size_t n = (size_t)(picture->rows * picture->columns);
    signed char *levels = malloc(n);
    if (levels == NULL) {
        c->failed = 1;
        return;
    }
    for (size_t i = 0; i < n; i++)
        levels[i] = (signed char)level_of(panel->cells[i], g->top_weight);
    put(c, "<g transform=\"scale(%g)\">\n", g->cell);
    for (int level = -2; level < LEVELS; level++) {
        if (level == -1 || memchr(levels, level, n) == NULL)
            continue;
        put(c, "<path class=\"");
        put_class(c, level);
        put(c, "\" d=\"");
        put_runs(c, levels, picture->rows, picture->columns, level);
        put(c, "\"/>\n");
    }
    put(c, "</g>\n");
    free(levels);
}

/* Labels stand at every cell, or so that about eight numbers fill the axis. */
static int64_t label_step(int64_t tokens)
{
    if (tokens <= MOST_WORDS)
        return 1;
    int64_t step = 1;
    while (tokens / step > 8)
        step *= 2;
    return step;
}

static void draw_axes(canvas *c, const cli_picture *picture, const cli_panel *panel,
                      const geometry *g)
{
    const double per_token = g->cell / (double)picture->block;
    const int64_t step_q = label_step(picture->n_q), step_k = label_step(picture->n_k);
    for (int64_t i = 0; i < picture->n_q; i += step_q) {
        put(c, "<text class=\"q\" x=\"-5\" y=\"%g\">", per_token * ((double)i + 0.5) + 4);
        put_label(c, picture->labels_q, i, 1);
        put(c, "</text>\n");
    }
    for (int64_t j = 0; j < picture->n_k; j += step_k) {
        const double x = per_token * ((double)j + 0.5) + 4;
        put(c, "<text transform=\"translate(%g,-5) rotate(-90)\">", x);
        put_label(c, picture->labels_k, j, 1);
        put(c, "</text>\n");
    }
    put(c, "<text class=\"axis\" transform=\"translate(%g,%g) rotate(-90)\">queries</text>\n",
        -g->left + 14, g->height / 2);
    put(c, "<text class=\"axis\" x=\"%g\" y=\"%g\">keys</text>\n", g->width / 2, -g->top + 30);
    put(c, "<text class=\"head\" x=\"0\" y=\"%g\">head %lld</text>\n", -g->top + 14,
        (long long)panel->head);
}

static void draw_legend(canvas *c, const geometry *g, double x, double y)
{
    const double height = 160, step = height / LEVELS;
    put(c, "<g transform=\"translate(%g,%g)\">\n<text x=\"0\" y=\"-8\">weight</text>\n", x, y);
    for (int level = 0; level < LEVELS; level++)
        put(c, "<rect class=\"w%d\" x=\"0\" y=\"%g\" width=\"16\" height=\"%g\"/>\n", level,
            height - step * (level + 1), step + 0.3);
    put(c, "<rect class=\"frame\" x=\"0\" y=\"0\" width=\"16\" height=\"%g\"/>\n", height);
    for (int tick = 0; tick <= 4; tick++)
        put(c, "<text x=\"22\" y=\"%g\">%.3g</text>\n", height - height * tick / 4 + 4,
            g->top_weight * tick / 4);
    put(c,
        "<rect class=\"zero\" x=\"0\" y=\"%g\" width=\"16\" height=\"14\"/>"
        "<rect class=\"frame\" x=\"0\" y=\"%g\" width=\"16\" height=\"14\"/>\n",
        height + 16, height + 16);
    put(c, "<text x=\"22\" y=\"%g\">exactly 0</text>\n</g>\n", height + 27);
}

static void draw_head(canvas *c, const cli_picture *picture, double width, double height)
{
    put(c,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%g\" height=\"%g\" viewBox=\"0 0 %g "
        "%g\" "
        "role=\"img\">\n<title>Attention weights, sequence %lld</title>\n<style>\n"
        "text{font:11px "
        "sans-serif;fill:#222}.q{text-anchor:end}.axis{text-anchor:middle;fill:#666}\n"
        ".head{font-weight:bold;font-size:13px}.title{font-size:15px;font-weight:bold}\n"
        "rect,path{shape-rendering:crispEdges}.zero{fill:#e4e4e4}.nan{fill:#d62728}\n"
        ".frame{fill:none;stroke:#888}\n",
        width, height, width, height, (long long)picture->sequence);
    for (int level = 0; level < LEVELS; level++) {
        put(c, ".w%d{fill:", level);
        put_colour(c, level);
        put(c, "}");
    }
    put(c,
        "\n</style>\n<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n"
        "<text class=\"title\" x=\"16\" y=\"26\">Attention weights, sequence %lld</text>\n",
        (long long)picture->sequence);
    if (picture->block > 1)
        put(c,
            "<text x=\"16\" y=\"44\">each cell is the largest weight of %lld \xc3\x97 %lld "
            "tokens</text>\n",
            (long long)picture->block, (long long)picture->block);
}

int cli_draw(const cli_picture *picture, char **text, size_t *bytes)
{
    const geometry g = measure(picture);
    canvas c = {0};
    const double above = picture->block > 1 ? 56 : 40, legend = 96;
    const double panel_width = g.left + g.width + g.gap, panel_height = g.top + g.height + g.gap;
    const double least_width = 290; /* the title */
    double width = 8 + panel_width * (double)g.across + legend;
    double height = above + panel_height * (double)g.down;
    width = width > least_width ? width : least_width;
    height = height > above + g.top + 210 ? height : above + g.top + 210;

    draw_head(&c, picture, width, height);
    for (int64_t p = 0; p < picture->n_panels; p++) {
        const cli_panel *panel = &picture->panels[p];
        put(&c, "<g transform=\"translate(%g,%g)\">\n",
            8 + g.left + panel_width * (double)(p % g.across),
            above + g.top + panel_height * (double)(p / g.across));
        put(&c, "<rect class=\"zero\" width=\"%g\" height=\"%g\"/>\n", g.width, g.height);
        if (picture->block == 1 && picture->rows * picture->columns <= MOST_TOOLTIPS)
            draw_cells_apart(&c, picture, panel, &g);
        else
            draw_cells_together(&c, picture, panel, &g);
        put(&c, "<rect class=\"frame\" width=\"%g\" height=\"%g\"/>\n", g.width, g.height);
        draw_axes(&c, picture, panel, &g);
        put(&c, "</g>\n");
    }
    draw_legend(&c, &g, 8 + panel_width * (double)g.across, above + g.top);
    put(&c, "</svg>\n");
    if (c.failed) {
        free(c.text);
        return 0;
    }
    *text = c.text;
    *bytes = c.used;
    return 1;
}
