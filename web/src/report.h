/* report.h - the answers of sizing as lines, with the names of qkv size --json. */
#ifndef QKV_WEB_REPORT_H
#define QKV_WEB_REPORT_H

#include "lines.h"
#include "qkv/sizing.h"

/* Cannot fail but for room. */
void web_report_setup(web_lines *l, const qkv_size_setup *setup, int context_assumed,
                      int weights_assumed);
void web_report_machine(web_lines *l, const char *name, const qkv_machine *machine);
void web_report_fit(web_lines *l, const char *name, const qkv_size_fit *fit);

/* What is said about one model, under "models.0". */
qkv_status web_report_model(web_lines *l, const qkv_model *model, const qkv_size_setup *setup,
                            const qkv_size_budget *budget, char *text, size_t bytes);
/* Its layers, which qkv size does not print: for the picture of them. */
void web_report_layers(web_lines *l, const qkv_model *model);

#endif
