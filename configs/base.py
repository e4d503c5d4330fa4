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
    # fmt: off
    config = ConfigDict()

    # --- The run --------------------------------------------------------------------------------------------
    config.seed = 0                                   # decides weights, data order, dropout and samples
    config.num_steps = 1000                           # optimizer steps
    config.batch_size = 32                            # sequences per step, over all devices and processes
    config.sequence_length = 256                      # tokens per sequence
    config.target_length = placeholder(int)           # of targets; None: sequence_length, or what spans need
    config.grad_accumulation = 1                      # parts of a batch computed one after another
    config.objective = 'causal'                       # what is learnt: the name of a file in objectives/
    config.initial_checkpoint = ''                    # model to begin from, as --checkpoint takes it; '': random.
    #                                                   Its tokenizer and shape are the run's (docs/fine-tuning.md)
    config.compute_dtype = 'auto'                     # 'float32', 'bfloat16'; 'auto': bfloat16 but on CPU
    config.gradient_dtype = 'float32'                 # in which devices sum them; 'bfloat16': half the bytes
    config.label_smoothing = 0.0                      # probability spread over the whole vocabulary
    config.z_loss = 0.0                               # weight of log²Z, against drifting logits (PaLM: 1e-4)
    config.ema_decay = 0.0                            # moving average of weights, for evaluation; 0: none
    config.max_skipped_steps = 20                     # stop after this many non-finite steps in a row

    # --- What masked language models (Devlin et al. 2019) and span corruption (Raffel et al. 2020) hide -----
    config.masking = ConfigDict()
    config.masking.rate = 0.15                        # share of tokens
    config.masking.whole_words = False                # 'masked': all tokens of a word or none
    config.masking.next_sentence = False              # 'masked': also learn whether two passages follow
    config.masking.span_length = 3.0                  # 'span_corruption': tokens of a span, on average

    # --- Word2Vec (Mikolov et al. 2013) and GloVe (Pennington et al. 2014) ----------------------------------
    config.words = ConfigDict()
    config.words.window = 5                           # neighbours on either side, at most; each place draws how many
    config.words.negatives = 5                        # noise words weighed against each true one
    config.words.shared_negatives = 32                # noise words drawn for each block of 32 places, and shared there
    config.words.noise_power = 0.75                   # noise is drawn by counts to this power
    config.words.subsample = 1e-3                     # share of the text above which words are thinned; 0: none
    config.words.least_pairs = 16.0                   # a word's gradient is the sum of a batch over at least these
    config.words.x_max = 100.0                        # GloVe: pairs more frequent than this weigh alike
    config.words.alpha = 0.75                         # GloVe: rarer ones weigh (x / x_max) to this power

    # --- Devices: how many share each axis; one -1 takes all that remain ------------------------------------
    config.mesh = ConfigDict()
    config.mesh.data = -1                             # copies of the model, each with its part of the batch
    config.mesh.fsdp = 1                              # parameters and optimizer state cut up, batch too
    config.mesh.tensor = 1                            # heads and hidden units cut up
    config.mesh.context = 1                           # the sequence cut up

    # --- Model: a family is a preset, every other key overrides it (model/families.py) ----------------------
    config.model = ConfigDict()
    config.model.family = 'gpt2'                      # 'gpt2', 'llama', 'bert', 't5', 'transformer', or
    #                                                   'word_embeddings', which reads embed_dim and vocab_size alone
    config.model.structure = placeholder(str)         # 'decoder', 'prefix_decoder' (a prompt sees itself whole),
    #                                                   'encoder', 'encoder_decoder'; None: the family's
    config.model.num_layers = 6                       # blocks, one after another
    config.model.encoder_layers = placeholder(int)    # of an encoder-decoder's encoder; None: num_layers
    config.model.embed_dim = 384                      # width of the residual stream
    config.model.num_heads = 6                        # query heads
    config.model.num_kv_heads = placeholder(int)      # key/value heads, shared by groups of queries; None: all
    config.model.head_dim = placeholder(int)          # None: embed_dim / num_heads
    config.model.mlp_dim = placeholder(int)           # None: 4 × embed_dim; gated: 8/3 ×, rounded up to 64
    config.model.vocab_size = placeholder(int)        # None: the tokenizer's, rounded up to 128
    config.model.max_length = placeholder(int)        # longest, generation included; None: sequence_length
    config.model.norm = placeholder(str)              # 'layernorm', 'rmsnorm'; None, here and below: family's
    config.model.norm_order = placeholder(str)        # 'pre': norms begin a residual branch; 'post': after its sum
    config.model.norm_epsilon = placeholder(float)    # added to the variance
    config.model.embedding_norm = placeholder(bool)   # normalise what the first block reads
    config.model.position = placeholder(str)          # 'learned', 'rotary', 'sinusoidal' or 'relative'
    config.model.position_offset = 0                  # rows of the learned table before position 0 (RoBERTa: 2)
    config.model.relative_buckets = 32                # 'relative': ranges of distances with a bias of their own
    config.model.relative_distance = 128              # 'relative': from here on all distances share one
    config.model.rope_theta = 10000.0                 # base of the rotary wavelengths
    config.model.rope_scaling = 'none'                # for longer texts: 'none', 'linear' or 'llama3'
    config.model.rope_factor = 1.0                    # by which 'linear' and 'llama3' stretch wavelengths
    config.model.rope_low_factor = 1.0                # 'llama3': original_length / this and longer are stretched
    config.model.rope_high_factor = 4.0               # 'llama3': original_length / this and shorter are kept
    config.model.rope_original_length = 8192          # 'llama3': longest text before stretching
    config.model.sliding_window = 0                   # a position sees this many, its own included; 0: all
    config.model.activation = placeholder(str)        # 'gelu', 'gelu_tanh', 'silu' or 'relu'
    config.model.gated_mlp = placeholder(bool)        # activation(gate) × up, as in SwiGLU
    config.model.use_bias = placeholder(bool)         # biases of projections and layer norms
    config.model.qkv_bias = placeholder(bool)         # those of query, key and value; None: use_bias
    config.model.qk_norm = placeholder(bool)          # normalise queries and keys per head
    config.model.scale_attention = placeholder(bool)  # scores times 1/√head_dim
    config.model.scale_embeddings = placeholder(bool)  # token embeddings times √embed_dim
    config.model.scale_logits = placeholder(bool)     # logits times 1/√embed_dim
    config.model.token_types = placeholder(int)       # kinds of tokens with a vector each, such as of sentences
    config.model.head = placeholder(str)              # 'linear', 'transform' (BERT's) or 'none' before the logits
    config.model.output_bias = placeholder(bool)      # a bias for each logit
    config.model.pooler = placeholder(bool)           # BERT's layer over the first position; None: for classes
    config.model.num_classes = 0                      # of whole sequences, decided by the pooler's output
    config.model.span_head = False                    # scores of each token as first and last of an answer
    config.model.tie_embeddings = placeholder(bool)   # one table for input and output
    config.model.embedding_vectors = ''               # file of word vectors as which tokens' begin; '': random
    config.model.dropout_rate = 0.0                   # on embeddings and on each residual branch; None: as the
    #                                                   family was trained
    config.model.attention = 'auto'                  # 'xla', 'blockwise', 'cudnn' (GPU), 'splash' (TPU); 'auto':
    #                                                   by platform and length
    config.model.remat = 'none'                       # recomputed backwards: 'none', 'dots' (all but projections),
    #                                                   'full' (all but what enters a block)
    config.model.vocab_blocks = 1                     # logits and loss of one such part of the vocabulary at a
    #                                                   time, and again backwards: logits never exist whole

    # --- Optimizer ------------------------------------------------------------------------------------------
    config.optimizer = ConfigDict()
    config.optimizer.name = 'adamw'                   # Adam with decoupled weight decay; 'adagrad', 'sgd'
    config.optimizer.learning_rate = 1e-3             # at the peak
    config.optimizer.schedule = 'cosine'              # 'cosine', 'linear', 'inverse_sqrt', 'wsd', 'constant'
    config.optimizer.warmup_steps = 100               # steps in which the learning rate rises from 0
    config.optimizer.final_learning_rate = 0.1        # share of the peak left at the end (cosine, linear, wsd)
    config.optimizer.decay_fraction = 0.2             # share of the steps in which 'wsd' decays
    config.optimizer.b1 = 0.9                         # decay of the mean of gradients
    config.optimizer.b2 = 0.95                        # decay of the mean of squared gradients
    config.optimizer.eps = 1e-8                       # added to the root of the mean square
    config.optimizer.weight_decay = 0.1               # decoupled, times the learning rate
    config.optimizer.weight_decay_exclude = (r'bias$', r'scale$', r'embedding$')  # patterns of names, undecayed
    config.optimizer.clip_norm = 1.0                  # gradients' largest global norm; 0: any
    config.optimizer.layer_decay = 1.0                # a block's rate is this times that of the block above
    config.optimizer.offload = False                  # moments lie in the hosts' memory, and come layer by layer
    config.optimizer.frozen = ()                      # patterns of names of parameters that stay as they are

    # --- LoRA (Hu et al. 2021): adapters beside kernels are learnt, and new heads; all else stays as it is -------
    config.lora = ConfigDict()
    config.lora.rank = 0                              # of the adapters; 0: none
    config.lora.alpha = 16.0                          # what they add is multiplied by alpha / rank
    config.lora.targets = (r'attention/(query|value)/kernel$',)  # patterns; all kernels: (r'blocks/.*kernel$',)

    # --- Text -----------------------------------------------------------------------------------------------
    config.data = ConfigDict()
    config.data.source = 'builtin:python-docs'        # or files, directories, globs; with commas between
    config.data.mode = 'shards'                       # 'shards' by prepare.py, or 'stream': text as it comes
    config.data.path = 'prepared/default'             # where prepare.py writes tokenizer and shards; also
    #                                                   a URL, such as s3://BUCKET/NAME (docs/data.md)
    config.data.text_field = 'text'                   # field of a record with the document; 'a|b': whichever is
    #                                                   there; '{title}\n\n{body}': a template of several
    config.data.target_field = ''                     # of the answer to it, likewise: makes pairs; '': plain text
    config.data.text_documents = 'paragraph'          # of .txt: 'paragraph' (blank line between), 'line', 'file'
    config.data.packing = 'concatenate'               # or 'best_fit': whole documents in rows, the rest padding
    config.data.cooccurrence_window = 0               # words on either side that make records (i, j, x); 0: none
    config.data.eval_fraction = 0.01                  # documents held out, chosen by the hash of their text
    config.data.shard_tokens = 1 << 24                # tokens per shard file
    config.data.num_workers = 0                       # processes of prepare.py; 0: one per core
    config.data.engine = 'processes'                  # of this machine, or 'ray': of a Ray cluster (docs/data.md)
    config.data.shuffle_bytes = 1 << 20               # 'stream' shuffles within windows of this size

    config.data.skip_damaged = False                  # leave out and count what is damaged, instead of stopping

    # --- Mixture: rows drawn from several sources, in exact shares (docs/mixtures.md) -----------------------
    config.data.mixture = ConfigDict()
    config.data.mixture.names = ()                    # of the sources, as in eval/NAME/loss; (): no mixture
    config.data.mixture.sources = ()                  # of each: directory by prepare.py; 'stream': data.source
    config.data.mixture.weights = ()                  # shares of the rows, in any unit; (): all rows there are
    config.data.mixture.curriculum = ()               # ((steps, *weights), …): other weights after so many steps
    config.data.mixture.temperature = 1.0             # weights to the power of 1 / this; above 1 small ones gain
    config.data.mixture.epochs = ()                   # times each may be read, then others get its share; 0: any

    # --- Cleaning: a preset (configs/cleaning.py), which every other key overrides; docs/data.md ------------
    config.data.cleaning = ConfigDict()
    config.data.cleaning.preset = 'none'              # 'none', 'repair' (characters), 'pretraining', 'strict'
    config.data.cleaning.invalid_utf8 = placeholder(bool)  # replace bytes that are not UTF-8, not refuse them
    config.data.cleaning.controls = placeholder(bool)  # remove NUL and other control characters
    config.data.cleaning.unicode = placeholder(str)   # normal form: 'NFC', 'NFKC' (full-width made narrow), ''
    config.data.cleaning.markup = placeholder(bool)   # remove HTML tags, resolve references such as &amp;
    config.data.cleaning.simplified = placeholder(bool)  # traditional Chinese to simplified
    config.data.cleaning.white_space = placeholder(bool)  # one kind of space and newline, no more blank lines
    config.data.cleaning.personal = placeholder(tuple)  # replace 'secrets', 'emails', 'china_ids', 'phones', …
    config.data.cleaning.c4 = placeholder(bool)       # keep lines that are sentences (Raffel et al. 2020)
    config.data.cleaning.min_characters = placeholder(int)  # drop shorter documents
    config.data.cleaning.max_characters = placeholder(int)  # drop longer documents; 0: none
    config.data.cleaning.max_symbols = placeholder(float)  # drop those with a larger share of symbols
    config.data.cleaning.gopher_quality = placeholder(bool)  # drop what breaks Gopher's rules (Rae et al. 2021)
    config.data.cleaning.gopher_repetition = placeholder(bool)  # drop what repeats itself (Rae et al., table A1)
    config.data.cleaning.languages = placeholder(tuple)  # keep these (ISO 639-1); (): any
    config.data.cleaning.language_confidence = 0.5    # least probability of the language
    config.data.cleaning.block_list = ''              # file of phrases, one a line; drop documents with any
    config.data.cleaning.evaluation_files = ''        # as data.source; drop documents with passages of these
    config.data.cleaning.evaluation_ngram = 13        # words of a passage (Brown et al. 2020); Chinese: twice it
    config.data.cleaning.duplicates = placeholder(str)  # keep one of 'exact' or 'near' duplicates; '': all
    config.data.cleaning.similarity = 0.8             # of 'near' duplicates: Jaccard, of 5 words in a row

    # --- Task: what is learnt from labelled examples (docs/fine-tuning.md) ----------------------------------
    config.task = ConfigDict()
    config.task.name = ''                             # a file in tasks/, such as 'summarization'; '': plain text
    config.task.source = ''                           # labelled examples: files as in data.source, SQuAD's .json,
    #                                                   'a.en|a.de': lines side by side; '': the task's own few
    config.task.eval_source = ''                      # examples to score; '': data.eval_fraction of task.source
    config.task.eval_examples = 500                   # scored while training, at most; 0: all
    config.task.fields = ''                           # where they are in a record: 'text=review, label=stars'
    config.task.prompt = ''                           # template around them, '{text}\\n'; '': the task's own
    config.task.labels = ()                           # classes; (): all that the examples have, in order
    config.task.multi_label = False                   # any number of classes is true of an example
    config.task.balance_classes = False               # rare classes weigh as much as frequent ones
    config.task.class_weights = ()                    # of the loss, in the order of task.labels; (): 1 each
    config.task.epochs = 0.0                          # passes over the examples, in place of num_steps; 0: that
    config.task.mask_rate = 0.0                       # noise: share of the tokens of a text that training hides
    config.task.unlabelled = ''                       # texts without classes to learn from too, files as above
    config.task.unlabelled_ratio = 7                  # so many of them for each labelled one in a batch
    config.task.consistency = 0.0                     # weight of each: what is clear without noise holds with it
    config.task.consistency_threshold = 0.9           # probability from which a class is clear
    config.task.language = 'en'                       # of answers: 'zh' is scored by characters, not words
    config.task.answer_tokens = 64                    # longest answer that is written, in tokens

    # --- Tokenizer: trained by prepare.py unless `path` names one -------------------------------------------
    config.tokenizer = ConfigDict()
    config.tokenizer.path = ''                        # .model file, or directory with a tokenizer; '' trains one
    config.tokenizer.kind = 'bpe'                     # 'bpe', 'unigram', or 'words' with their counts
    config.tokenizer.vocab_size = 8192                # pieces, with the 256 bytes and all control symbols;
    #                                                   of 'words' at most so many, the most frequent
    config.tokenizer.control_symbols = ()             # besides <pad>, <s>, </s>, <unk>: '<mask>', '<extra_id_0>'
    config.tokenizer.sample_bytes = 10_000_000        # text it learns from, sampled from all the source
    config.tokenizer.character_coverage = 0.9995      # characters with pieces of their own; rarer ones: bytes
    config.tokenizer.min_count = 5                    # 'words': rarer ones are left out of the text
    config.tokenizer.lowercase = True                 # 'words': The and the are one
    config.tokenizer.phrase_threshold = 0.0           # 'words': score from which two are joined (100); 0: never

    # --- What is watched, written and kept, in steps; 0 turns a thing off -----------------------------------
    config.log_every = 10                             # a line in metrics.jsonl
    config.eval_every = 250                           # loss on held-out text
    config.eval_batches = 16                          # batches of held-out text; 0: all of it
    config.checkpoint_every = 250                     # state written to RUN/checkpoints, in the background
    config.keep_checkpoints = 2                       # the latest; the best is kept besides
    config.best_metric = 'eval/loss'                  # decides which is best; '': none, the latest is taken
    config.early_stopping = 0                         # stop after so many evaluations that are not better; 0: never
    config.sample_every = 250                         # continuations of sample_prompts in RUN/samples
    config.sample_prompts = ('The ', 'Return ', 'def ')  # continued as training goes
    config.sample_tokens = 48                         # new tokens per sample
    config.profile_steps = ()                         # (first, last) step of a profiler trace in RUN/profile
    config.tensorboard = False                        # event files in RUN/tensorboard

    config.wandb = ConfigDict()
    config.wandb.mode = 'disabled'                    # 'online', 'offline' or 'disabled'
    config.wandb.project = 'lathe'                    # where the run appears
    config.wandb.name = ''                            # '': the name of the run directory
    config.wandb.group = ''                           # runs shown together, such as a sweep
    config.wandb.tags = ()                            # words to find it by
    # fmt: on
    return config.lock()


def for_laptop(config: ConfigDict) -> None:
    """Gives an experiment the text, batches and steps with which two CPU cores learn something in minutes."""
    config.sequence_length = 256
    config.batch_size = 16
    config.num_steps = 1500
    config.data.eval_fraction = 0.01
    config.tokenizer.vocab_size = 4096
    config.tokenizer.sample_bytes = 8_000_000
    config.optimizer.warmup_steps = 100
    config.eval_every = 250
    config.sample_every = 500
    config.checkpoint_every = 250


def shrink(config: ConfigDict) -> None:
    """Makes an experiment small enough for seconds on one core; what kind of model it is stays.

    This is what `:smoke` means in every experiment file.
    """
    heads = config.model.num_heads
    grouped = config.model.num_kv_heads is not None and config.model.num_kv_heads < heads
    config.model.num_layers = 2
    config.model.embed_dim = 64
    config.model.num_heads = 4
    config.model.num_kv_heads = 2 if grouped else None
    config.model.mlp_dim = None
    config.sequence_length = 64
    config.target_length = None
    config.batch_size = 8
    config.grad_accumulation = 1
    config.num_steps = 30
    config.tokenizer.vocab_size = 512
    config.tokenizer.sample_bytes = 200_000
    config.optimizer.warmup_steps = 5
    config.log_every = 1
    config.eval_every = 10
    config.eval_batches = 2
    config.checkpoint_every = 10
    config.sample_every = 30
    config.sample_tokens = 8
