"""Defaults of every experiment. Each key is explained here, once.

An experiment is a file beside this one whose `get_config(argument)` starts from these
defaults and changes what is particular to it. None means: derived from other keys, as
the comment says. Lengths are in tokens, sizes in bytes, unless a comment says otherwise.
"""

from __future__ import annotations

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
    """Returns the defaults: a GPT-2 shape trained causally on the embedded corpus."""
    config = ConfigDict()

    # --- The run ---------------------------------------------------------------------------
    config.seed = 0                       # initialisation, data order, dropout and sampling follow from it
    config.num_steps = 1000               # optimizer steps
    config.batch_size = 32                # sequences per step, over all devices and processes
    config.sequence_length = 256          # tokens per sequence
    config.grad_accumulation = 1          # each batch in this many parts, one after another, to save memory
    config.objective = 'causal'           # what is learnt: the name of a file in objectives/
    config.compute_dtype = 'auto'         # 'float32', 'bfloat16', or 'auto': bfloat16 on TPU and GPU, float32 on CPU
    config.label_smoothing = 0.0          # share of the target's probability spread over the vocabulary
    config.z_loss = 0.0                   # weight of log²Z, which keeps logits from drifting (PaLM uses 1e-4)
    config.ema_decay = 0.0                # evaluation uses an exponential moving average of weights; 0 turns it off
    config.max_skipped_steps = 20         # stop after this many non-finite steps in a row
    config.deterministic = True           # on GPU, refuse kernels whose sums depend on timing

    # --- Devices: how many share each axis; one -1 takes all that remain -----------------------
    config.mesh = ConfigDict()
    config.mesh.data = -1                 # copies of the model, each with its part of the batch
    config.mesh.fsdp = 1                  # parameters and optimizer state cut up, batch too
    config.mesh.tensor = 1                # heads and hidden units cut up
    config.mesh.context = 1               # the sequence cut up

    # --- Model: a family is a preset, every other key overrides it (model/families.py) ----------
    config.model = ConfigDict()
    config.model.family = 'gpt2'          # 'gpt2' or 'llama'
    config.model.num_layers = 6
    config.model.embed_dim = 384          # width of the residual stream
    config.model.num_heads = 6            # query heads
    config.model.num_kv_heads = placeholder(int)   # key/value heads, shared by groups of query heads; None: num_heads
    config.model.head_dim = placeholder(int)       # None: embed_dim / num_heads
    config.model.mlp_dim = placeholder(int)        # None: 4 × embed_dim, or 8/3 × (rounded up to 64) when gated
    config.model.vocab_size = placeholder(int)     # None: the tokenizer's, rounded up to a multiple of 128
    config.model.max_length = placeholder(int)     # longest sequence, generation included; None: sequence_length
    config.model.norm = placeholder(str)           # 'layernorm' or 'rmsnorm'; None here and below: the family's choice
    config.model.norm_epsilon = placeholder(float)
    config.model.position = placeholder(str)       # 'learned' or 'rotary'
    config.model.rope_theta = placeholder(float)   # base of the rotary wavelengths
    config.model.activation = placeholder(str)     # 'gelu', 'gelu_tanh', 'silu' or 'relu'
    config.model.gated_mlp = placeholder(bool)     # activation(gate) × up, as in SwiGLU
    config.model.use_bias = placeholder(bool)      # biases of projections and layer norms
    config.model.qk_norm = placeholder(bool)       # normalise queries and keys per head
    config.model.tie_embeddings = placeholder(bool)  # one table for input and output
    config.model.dropout_rate = 0.0       # on embeddings and on each residual branch
    config.model.attention = 'auto'       # 'xla', 'cudnn' (GPU), 'splash' (TPU), or 'auto': by platform
    config.model.remat = 'none'           # recomputed in the backward pass: 'none', 'dots' (all but matrix products) or 'full'

    # --- Optimizer --------------------------------------------------------------------------
    config.optimizer = ConfigDict()
    config.optimizer.name = 'adamw'
    config.optimizer.learning_rate = 1e-3          # at the peak
    config.optimizer.schedule = 'cosine'           # after warm-up: 'cosine', 'linear', 'inverse_sqrt', 'wsd' or 'constant'
    config.optimizer.warmup_steps = 100
    config.optimizer.final_learning_rate = 0.1     # share of the peak left at the end (cosine, linear, wsd)
    config.optimizer.decay_fraction = 0.2          # share of the steps in which 'wsd' decays
    config.optimizer.b1 = 0.9
    config.optimizer.b2 = 0.95
    config.optimizer.eps = 1e-8
    config.optimizer.weight_decay = 0.1            # decoupled, times the learning rate
    config.optimizer.weight_decay_exclude = (r'bias$', r'scale$', r'embedding$')  # parameters left undecayed: patterns of names
    config.optimizer.clip_norm = 1.0               # gradients are scaled down to this global norm; 0 turns it off

    # --- Text ---------------------------------------------------------------------------------
    config.data = ConfigDict()
    config.data.source = 'builtin:python-docs'     # or files, directories and globs, separated by commas
    config.data.mode = 'shards'                    # 'shards' written by prepare.py, or 'stream': raw text tokenised on the fly
    config.data.path = 'prepared/default'          # directory of the tokenizer and shards that prepare.py writes
    config.data.text_field = 'text'                # the field of JSON lines that holds the document
    config.data.text_documents = 'paragraph'       # in .txt a document is a 'paragraph' (to a blank line), a 'line' or the 'file'
    config.data.eval_fraction = 0.01               # share of documents held out, chosen by the hash of their text
    config.data.shard_tokens = 1 << 24             # tokens per shard file
    config.data.num_workers = 0                    # processes of prepare.py; 0: one per core
    config.data.shuffle_bytes = 1 << 20            # 'stream': text is shuffled within windows of this size

    # --- Tokenizer: trained by prepare.py unless `path` names one -----------------------------
    config.tokenizer = ConfigDict()
    config.tokenizer.path = ''                     # a SentencePiece .model file to use as it is; '' trains one
    config.tokenizer.kind = 'bpe'                  # 'bpe' or 'unigram'
    config.tokenizer.vocab_size = 8192             # pieces, the 256 bytes and 3 control symbols included
    config.tokenizer.sample_bytes = 10_000_000     # text it is trained on, sampled from all the source
    config.tokenizer.character_coverage = 0.9995   # share of characters with pieces of their own; the rest become bytes

    # --- What is watched, written and kept, in steps; 0 turns a thing off -------------------------
    config.log_every = 10
    config.eval_every = 250
    config.eval_batches = 16                       # batches of held-out text per evaluation; 0 there: all of it
    config.checkpoint_every = 250
    config.keep_checkpoints = 2                    # the latest ones; the best by evaluation loss is kept besides
    config.sample_every = 250
    config.sample_prompts = ('The ', 'def ', 'Return ')
    config.sample_tokens = 48                      # new tokens per sample
    config.profile_steps = ()                      # (first, last): a profiler trace of these steps in RUN/profile
    config.tensorboard = False                     # event files in RUN/tensorboard

    config.wandb = ConfigDict()
    config.wandb.mode = 'disabled'                 # 'online', 'offline' or 'disabled'
    config.wandb.project = 'lathe'
    config.wandb.name = ''                         # '': the name of the run directory
    config.wandb.group = ''
    config.wandb.tags = ()
    return config
