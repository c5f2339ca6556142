/* help.c - the help pages.  qkv.1 says the same as a man page; a test compares their options. */
#include <stdio.h>
#include <string.h>

#include "cli.h"

// clang-format off
/* Several literals, because C promises only 4095 characters for one. */
#define INPUT_OPTIONS                                                                              \
    "Inputs\n"                                                                                     \
    "  --q FILE, --k FILE, --v FILE\n"                                                             \
    "        Queries [B,Hq,Tq,D], keys [B,Hkv,Tk,D], values [B,Hkv,Tk,Dv].  Types f32, f16\n"      \
    "        and bf16 in any mixture, or f64 for all.  Hkv divides Hq; query head h reads\n"       \
    "        key/value head h / (Hq/Hkv), rounded down.\n"                                         \
    "  --in FILE.safetensors\n"                                                                    \
    "        One file that holds q, k and v, and whichever it has of mask, bias, sinks, alibi,\n"  \
    "        block_mask, q_lens, kv_lens, kv_starts, q_offset, cu_seqlens_q and cu_seqlens_k.\n"   \
    "        An input given by its own option replaces the one in the file.\n"                     \
    "  --mask FILE\n"                                                                              \
    "        bool (or u1), what broadcasts to [B,Hq,Tq,Tk]; true where the key is visible.\n"      \
    "  --bias FILE\n"                                                                              \
    "        Added to the scores; broadcasts likewise; -infinity hides.\n"                         \
    "  --sinks FILE\n"                                                                             \
    "        Attention sinks, one logit a query head: [Hq] or [B,Hq].\n"                           \
    "  --alibi FILE\n"                                                                             \
    "        ALiBi slopes, [Hq] or [B,Hq]: adds -slope |p - j|.\n"

#define LENGTH_OPTIONS                                                                             \
    "\nLengths (N for all sequences, N,N,... one a sequence, or a file of i32 or i64 [B])\n"       \
    "  --q-lens N|N,N|FILE\n"                                                                      \
    "        Queries each sequence has.  Rows past them are 0, their LSE -infinity.\n"             \
    "  --kv-lens N|N,N|FILE\n"                                                                     \
    "        End of each sequence's keys: key j exists if kv_start <= j < kv_len.\n"               \
    "  --kv-starts N|N,N|FILE\n"                                                                   \
    "        First key of each sequence that exists (left padding).\n"                             \
    "  --q-offset N|N,N|FILE\n"                                                                    \
    "        Position p of query 0; may be negative.  Overrides --align.\n"                        \
    "  --cu-seqlens-q N,N|FILE, --cu-seqlens-k N,N|FILE\n"                                         \
    "        Packed sequences: q [T,Hq,D], or k [T,Hkv,D] and v [T,Hkv,Dv]; sequence b owns\n"     \
    "        rows cu[b] to cu[b+1]-1.  The output is [T,Hq,Dv], the LSE [Hq,T].\n"                 \
    "\nMasks and scores\n"                                                                         \
    "  --causal, --causal-strict\n"                                                                \
    "        Query i at position p = q_offset + i sees keys j <= p, or j < p.\n"                   \
    "  --align bottom-right|top-left\n"                                                            \
    "        q_offset is kv_len - q_len (the default), or 0.\n"                                    \
    "  --window L,R\n"                                                                             \
    "        Keys p - L <= j <= p + R only; -1 leaves a side open.\n"                              \
    "  --block-mask FILE, --block-size M,N\n"                                                      \
    "        bool, what broadcasts to [B,Hq,ceil(Tq/M),ceil(Tk/N)]: true where a block of M\n"     \
    "        queries and N keys is visible.  Default 64,64.\n"                                     \
    "  --scale X\n"                                                                                \
    "        Factor of the scores.  Default 1/sqrt(D).\n"                                          \
    "  --softcap X\n"                                                                              \
    "        Scores become X tanh(s/X).  0, the default, leaves them.\n"

#define RUN_OPTIONS                                                                                \
    "\nHow it runs\n"                                                                              \
    "  --precision highest|high|medium\n"                                                          \
    "        How far f32 may be rounded before products.  Default highest.\n"                      \
    "  --cpu TIER\n"                                                                               \
    "        Use no tier above this one of those that qkv info lists.  Default: the highest\n"     \
    "        of this machine.\n"                                                                   \
    "  --threads N\n"                                                                              \
    "        1 to 1024; default: the processors there are.  Never changes the result.\n"

static const char main_page[] =
    "qkv - attention for CPUs: MHA, MQA, GQA and MLA, masks, lengths and all\n"
    "\n"
    "Usage\n"
    "  qkv attend [options] -o OUT     compute attention on tensors in files\n"
    "  qkv check [options]             compare this machine's kernels with the oracle\n"
    "  qkv info [--json]               version, CPU, tiers and kernels\n"
    "  qkv bench [options]             this machine's ceilings, and what qkv reaches of them\n"
    "  qkv bench layer [options]       a whole layer: attention and projections apart\n"
    "  qkv cache inspect|stats FILE    what a saved cache holds\n"
    "  qkv layer info MODEL_DIR        what the attention of a model is, layer by layer\n"
    "  qkv layer run MODEL_DIR ...     hidden states from a file through one layer's attention\n"
    "  qkv convert MODEL_DIR ...       a model, or a layer, with another kind of attention\n"
    "  qkv size CONFIG_OR_DIR ...      what the attention of a model costs, and what fits\n"
    "  qkv help [COMMAND]              this page, or a command's; also qkv COMMAND --help\n"
    "  qkv --version\n"
    "\n"
    "Tensors are .npy and .safetensors files.  Exit status: 0 done, 1 a check failed, 2 the call\n"
    "was wrong.\n"
    "\n"
    "First steps\n"
    "  qkv info\n"
    "  qkv check\n"
    "  qkv attend --q q.npy --k k.npy --v v.npy --causal -o out.npy --heatmap head.svg\n";

static const char attend_page[] =
    "qkv attend - compute scaled dot-product attention on tensors in files\n"
    "\n"
    "Usage\n"
    "  qkv attend --q FILE --k FILE --v FILE [options] -o OUT\n"
    "  qkv attend --in FILE.safetensors [options] -o OUT\n"
    "\n"
    "    o_i = sum_j w_ij v_j      w_i = softmax_j( cap(scale q_i . k_j) + alibi_ij + bias_ij )\n"
    "\n"
    "over the keys j that query i sees.  A query that sees no key gives 0.\n"
    "\n"
    "Shapes are [B,H,T,D]; [H,T,D] and [T,D] have B = 1 and H = 1.  The output has the rank and\n"
    "type of q.  FILE ends in .npy or .safetensors, from which the tensor of the input's name is\n"
    "taken (or the only one); FILE.safetensors:NAME takes another.  bf16 is BF16 in .safetensors\n"
    "and dtype V2 in .npy.\n"
    "\n" INPUT_OPTIONS LENGTH_OPTIONS
    "\nOutputs (.npy or .safetensors by their ending; at least one)\n"
    "  -o FILE, --output FILE\n"
    "        The result, named o in a .safetensors file.\n"
    "  --lse FILE\n"
    "        Log of the sum of exponentials of each row, [B,Hq,Tq], f32 (f64 with f64).\n"
    "  --weights FILE, --stage scores|capped|biased|weights\n"
    "        [B,Hq,Tq,Tk]: the scores, after the soft-cap, after bias and masks, or the weights\n"
    "        (the default).  Outputs that name one .safetensors file share it.\n"
    "  --heatmap FILE.svg\n"
    "        A picture of attention weights.\n"
    "  --heatmap-head H|H,H|all, --heatmap-seq B\n"
    "        Heads and sequence of the picture, counted from 0.  Default 0 and 0.\n"
    "  --labels FILE, --labels-q FILE\n"
    "        A word a line for the keys; queries take the words at their positions, or their own.\n"
    "  --json\n"
    "        A report as JSON on standard output in place of the one on standard error.\n"
    RUN_OPTIONS "\nExamples\n"
    "  Causal attention over everything, and a picture of heads 0 and 3:\n"
    "    qkv attend --q q.npy --k k.npy --v v.npy --causal -o out.npy \\\n"
    "        --heatmap heads.svg --heatmap-head 0,3 --labels words.txt\n"
    "  A decoding step over a padded cache of three sequences, window of 1,024 tokens:\n"
    "    qkv attend --in step.safetensors --kv-lens 812,77,2048 --causal --window 1023,0 -o o.npy\n"
    "  Two packed sequences of 5 and 7 tokens:\n"
    "    qkv attend --in packed.safetensors --cu-seqlens-q 0,5,12 --cu-seqlens-k 0,5,12 -o o.npy\n"
    "\n"
    "Exit status: 0 done, 2 the call was wrong or a file could not be written.  Outputs are\n"
    "complete or not there: they are written under a temporary name and renamed.\n";

static const char check_page[] =
    "qkv check - compare this machine's kernels with the oracle\n"
    "\n"
    "Usage\n"
    "  qkv check [--seed N] [--cases N] [--cpu TIER] [--verbose] [--json]\n"
    "  qkv check --q FILE --k FILE --v FILE [options of qkv attend]\n"
    "\n"
    "Runs every tier this machine has on random problems, or on the files given, and compares\n"
    "each element of the output and of the LSE with plain C in double.  An error is given as a\n"
    "share of its budget, which is the rounding of the types propagated through the problem "
    "itself:\n"
    "up to 1 passes.  The worst is printed for each kernel (tier and types), with its seed.\n"
    "\n"
    "Random problems\n"
    "  --seed N\n"
    "        Seed of the first case; case i has seed N + i.  Default: from the clock; printed.\n"
    "  --cases N\n"
    "        How many.  Default 200.\n"
    "  --verbose\n"
    "        A line for each case.\n"
    "  --json\n"
    "        The results as JSON on standard output.\n"
    "\n" INPUT_OPTIONS LENGTH_OPTIONS RUN_OPTIONS "\nExamples\n"
    "  qkv check\n"
    "  qkv check --seed 1234 --cases 1 --verbose       one case again\n"
    "  qkv check --in layer.safetensors --causal\n"
    "\n"
    "Exit status: 0 all within budget, 1 not, 2 the call was wrong.\n";

static const char info_page[] =
    "qkv info - version, CPU, tiers and kernels\n"
    "\n"
    "Usage\n"
    "  qkv info [--json]\n"
    "\n"
    "Prints the version, the CPU, the tiers of instructions kernels exist for (with the reason\n"
    "where one is off), and which kernel exists for which types in which tier: yes, off (not on\n"
    "this machine) or - (not in this build).\n"
    "\n"
    "  --json\n"
    "        The same as JSON.\n"
    "\n"
    "Exit status: 0 done, 2 the call was wrong.\n";

static const char bench_page[] =
    "qkv bench - measure this machine's ceilings, and what qkv reaches of them\n"
    "\n"
    "Usage\n"
    "  qkv bench [--threads N] [--shape SUBSTRING] [--tier NAME] [--repeat N] [--json FILE]\n"
    "  qkv bench --calibrate [FILE] [--threads N]\n"
    "  qkv bench --scaling [--threads N] [--shape SUBSTRING] [--tier NAME] [--json FILE]\n"
    "  qkv bench --list\n"
    "  qkv bench layer [options]     a whole attention layer; has a page of its own\n"
    "\n"
    "A ceiling is what one kind of instruction does from registers, or how fast memory is read.\n"
    "The roof of a case is the time that its useful work takes at the ceiling of its kernel's\n"
    "instructions, or its keys and values at the read rate, whichever is longer; both are measured\n"
    "again right before and after the case.  Useful work: 2 (D + Dv) operations for each visible\n"
    "pair of query and key; each byte of K and V once.  The columns of the table:\n"
    "\n"
    "  median, spread   time of a call, and (slowest - fastest) / median of the repeats\n"
    "  GFLOP/s, GB/s    useful work and bytes a second\n"
    "  bound by         the ceiling that makes the roof, and its rate beside this case\n"
    "  roof, start      the roof's time over the median; with the ceilings of the start\n"
    "  versus           the roof column over that of the case it should keep up with; with an x,\n"
    "                   how many times faster than the case that took turns with it\n"
    "  reads            bytes of K and V that are read, by count, over those there are\n"
    "  error            of sampled rows, as a share of their budget; up to 1 is right\n"
    "\n"
    "What is measured\n"
    "  --shape SUBSTRING\n"
    "        Only cases (or points of --scaling) whose name has it.  Default: all.\n"
    "  --tier NAME\n"
    "        Use no tier above this one.  Default: the highest of this machine.\n"
    "  --threads N\n"
    "        1 to 1024.  Default 1; with --calibrate and --scaling the processors there are.\n"
    "  --repeat N\n"
    "        1 to 1000 timings of each case.  Default 9.\n"
    "  --memory MIB\n"
    "        16 to 1048576.  What the read rate is measured over and cold cases rotate over; it\n"
    "        should be more than all caches hold.  Default 1024.\n"
    "  --json FILE\n"
    "        Writes everything measured, and what it was measured on.\n"
    "\n"
    "Other things to do\n"
    "  --calibrate [FILE]\n"
    "        Writes the ceilings, with one thread and with all, as JSON to FILE, or to\n"
    "        $XDG_CONFIG_HOME/qkv/machine.json (~/.config/qkv/machine.json).\n"
    "  --scaling\n"
    "        Time, workspace and largest resident memory for T from 128 to 65536, D from 32 to\n"
    "        256 and 1 to N threads, each point in a process of its own.\n"
    "  --list\n"
    "        The cases, and do nothing.\n"
    "\n"
    "Examples\n"
    "  qkv bench --shape decode --threads 2\n"
    "  qkv bench --json here.json\n"
    "  qkv bench --calibrate\n"
    "\n"
    "Exit status: 0 done, 2 the call was wrong or a file could not be written.\n";

static const char cache_page[] =
    "qkv cache - what a saved cache of keys and values holds\n"
    "\n"
    "Usage\n"
    "  qkv cache inspect FILE [--header] [--json]\n"
    "  qkv cache stats FILE [--json]\n"
    "\n"
    "inspect prints what kind of cache was saved and its sequences: tokens, how many of them\n"
    "are committed, from which on they were kept (0: all; the first ones, sinks, are kept\n"
    "besides), pages, and how many of these other sequences share.  stats counts tokens, pages\n"
    "and bytes: payload is what holds tokens, with their scales, compared with 16 bits.\n"
    "\n"
    "Both read the whole file, which takes as much memory, and check it as loading does.  A file\n"
    "that is cut short, damaged or something else is refused.\n"
    "\n"
    "  --header\n"
    "        Look at the header only, with its checksum; nothing about single sequences then.\n"
    "  --json\n"
    "        The same as JSON.\n"
    "\n"
    "Exit status: 0 done, 2 the call was wrong or the file is not a sound cache.\n";

#define LAYER_RUN_OPTIONS                                                                          \
    "run reads the layer's weights (model.safetensors, or the files of its index) and computes\n"  \
    "its attention.  Files of numbers are .npy.\n"                                                 \
    "\n"                                                                                           \
    "  --in FILE, -o FILE, --output FILE\n"                                                        \
    "        Hidden states [B,T,d_model] or [T,d_model], as they enter the projections of q, k\n"  \
    "        and v (after the input norm), and the result, of the same type: after the output\n"   \
    "        projection and its bias, before residual and norm.  Computed in f32.\n"               \
    "  --part decoder|encoder|cross, --memory FILE\n"                                              \
    "        Which attention of an encoder-decoder; cross needs the encoder's output\n"            \
    "        [B,Tm,d_memory] and is what is meant when it is given.\n"                             \
    "  --positions FILE\n"                                                                         \
    "        i32 or i64 [B,T] or [T], for RoPE.  Default: 0, 1, 2 ...\n"                           \
    "  --kv-lens N|N,N|FILE, --kv-starts N|N,N|FILE\n"                                             \
    "        Where the tokens of each sequence end and begin (padding); with --memory those of\n"  \
    "        the memory.  Rows that are no tokens are 0 in the result.\n"                          \
    "  --prefill-then-decode K\n"                                                                  \
    "        All but the last K tokens of each sequence go into a cache at once, the last K one\n" \
    "        by one.  Equal to the plain run within rounding, and within that of the format.\n"    \
    "  --cache FORMAT\n"                                                                           \
    "        f32 (the default), f16, bf16, int8, int8_channel, int4, e4m3 or e5m2.  Alone:\n"      \
    "        everything goes through the cache at once.\n"                                         \
    "  --mla auto|expanded|absorbed\n"                                                             \
    "        How MLA is computed.  Default auto: what needs fewer multiply-adds.\n"                \
    "  --weights f32|bf16|int8|f32_packed\n"                                                       \
    "        How the layer keeps its matrices.  Default f32.  The others need a build with\n"      \
    "        oneDNN: weights and inputs of projections rounded to bf16; weights in int8 by\n"      \
    "        output channel and inputs in 16 bits; f32 in the order of oneDNN's products.\n"       \
    "  --threads N\n"                                                                              \
    "        1 to 1024; default: the processors there are.  Never changes the result.\n"

static const char layer_page[] =
    "qkv layer - what the attention of a model is, and to run it\n"
    "\n"
    "Usage\n"
    "  qkv layer info MODEL_DIR [--layer N] [--as FAMILY] [--json]\n"
    "  qkv layer run MODEL_DIR --layer N --in FILE -o FILE [options]\n"
    "\n"
    "MODEL_DIR is a folder with config.json, or that file, as Hugging Face Transformers writes it.\n"
    "info prints the variant, heads and widths, scale, window, rotary embedding, norms and biases,\n"
    "for layers that are alike at once, and what a cache keeps a token, in elements and in bytes\n"
    "of 16 bits.\n"
    "\n"
    "A model_type that is not known is refused, and so is a field that would change the answer in\n"
    "a way that is not known.  Fields that speak of attention and were not looked at are listed.\n"
    "\n"
    "  --layer N\n"
    "        This layer only; 0 is the first.\n"
    "  --as FAMILY\n"
    "        Read the file as that of a family, whatever its model_type says.\n"
    "  --json\n"
    "        The same as JSON, with frequencies of the rotary embedding and names of tensors.\n"
    "\n" LAYER_RUN_OPTIONS
    "\n"
    "Exit status: 0 done, 2 the call was wrong or the model is refused.\n";

static const char help_page[] = "qkv help - show a page\n"
                                "\n"
                                "Usage\n"
                                "  qkv help [attend|check|info|bench|cache|layer|size|convert|help]\n";

// clang-format on

const char *cli_help_page(const char *topic)
{
    static const struct {
        const char *topic, *page;
    } pages[] = {{"", main_page},
                 {"attend", attend_page},
                 {"check", check_page},
                 {"info", info_page},
                 {"bench", bench_page},
                 {"cache", cache_page},
                 {"layer", layer_page},
                 {"size", cli_size_page},
                 {"convert", cli_convert_page},
                 {"help", help_page}};
    for (size_t i = 0; i < sizeof pages / sizeof pages[0]; i++)
        if (strcmp(topic, pages[i].topic) == 0)
            return pages[i].page;
    return NULL;
}

int cli_help(int argc, char **argv)
{
    const char *topic = argc > 1 ? argv[1] : "";
    if (argc > 1 && strcmp(argv[1], "--help") == 0)
        topic = "help";
    const char *page = argc <= 2 ? cli_help_page(topic) : NULL;
    if (page == NULL)
        return cli_complain(
            "%s is not a page; accepted are attend, check, info, bench, cache, layer, size, convert and help",
            argv[argc > 2 ? 2 : 1]);
    fputs(page, stdout);
    return CLI_DONE;
}
