"""Trains a language model.

  python train.py --config=configs/quickstart.py --workdir=runs/quickstart [--config.KEY=VALUE …]

The config says what to train, --workdir where everything goes: config.json, metrics.jsonl, loss.png,
log.txt, tokenizer/, samples/ and checkpoints/. The same command continues a run that was stopped, from
its newest checkpoint. Text is prepared beforehand by: python prepare.py with the same config.
Ctrl-C and SIGTERM write a checkpoint first.

Several processes, on one machine or many, train one model: docs/launch.md says how they are started.
"""

from __future__ import annotations

import time
from pathlib import Path

from absl import flags

from configs import command_line, experiment
from configs.errors import UserError
from parallel.peers import ending_together
from parallel.progress import Progress

command_line.define_config()
WORKDIR = flags.DEFINE_string('workdir', None, 'Directory of the run; made if absent.', required=True)

STARTED = time.perf_counter()


def train(config, workdir: Path) -> int:
    """Trains to `config.num_steps` and returns the exit status: 0, or 128 + the signal that stopped it."""
    experiment.check(config)
    # JAX takes a second to import, so --help and mistyped keys are answered before it is.
    import jax

    import objectives
    from parallel import compiler, processes
    from parallel import mesh as meshes
    from training import (
        beginning,
        console,
        datasets,
        freezing,
        hardware,
        plot,
        provenance,
        run,
        sampling,
        shutdown,
        tracking,
    )
    from training import state as states
    from training.best import Best
    from training.checkpoint import Checkpoints
    from training.evaluation import Evaluator, batches
    from training.optimizer import make_optimizer, make_schedule
    from training.step import make_train_step

    # ---- Devices and mesh ------------------------------------------------------------------------------
    progress = Progress()
    peers = processes.start(progress)
    peers.agree(provenance.identity(config))
    mesh = meshes.make_mesh(config.mesh)
    meshes.check_batch(mesh, config)
    jax.set_mesh(mesh)
    rows = meshes.local_rows(mesh, config.batch_size)

    # ---- Data ------------------------------------------------------------------------------------------
    begins = beginning.find(config, workdir, mesh)
    dataset = datasets.open_dataset(config, begins.tokenizer)
    objective = objectives.get(config.objective)
    train_data = dataset.training(rows)
    tokenizer = train_data.tokenizer
    peers.agree({'data_fingerprint': train_data.fingerprint, 'tokenizer_fingerprint': tokenizer.fingerprint})

    # ---- Model and state -------------------------------------------------------------------------------
    model = run.build_model(config, tokenizer, mesh)
    objective.check(config, model.config, tokenizer)
    lengths = objective.lengths(config)
    optimizer = make_optimizer(config)
    learns = freezing.learnt(config)
    abstract = states.experiment_state(config, model, optimizer, mesh)
    num_params, num_frozen = freezing.size(abstract.whole_params()), freezing.size(abstract.frozen)

    # ---- Restore ---------------------------------------------------------------------------------------
    main = processes.is_main()
    log = console.Log(run.prepare_directory(workdir) / 'log.txt' if main else None, quiet=not main)
    progress.record = workdir / 'log.txt' if main else None
    facts = {
        'code_version': provenance.code_version(),
        'data_fingerprint': train_data.fingerprint,
        'tokenizer_fingerprint': tokenizer.fingerprint,
        'packages': provenance.package_versions(),
        'devices': provenance.devices(),
        'mesh': dict(mesh.shape),
        'num_params': num_params,
    }
    checkpoints = Checkpoints(
        workdir / 'checkpoints', keep=config.keep_checkpoints, best_metric=config.best_metric
    )
    first_position = meshes.global_array(
        mesh, train_data.initial_position(), rows, config.batch_size, meshes.ROW_SPEC
    )
    resumed = run.resume(checkpoints, beginning.kept(abstract, config), first_position, config, facts, log)
    if resumed is None:
        start, position, best = 0, first_position, Best(config)
        state, began = begins.first_state(model, optimizer, abstract, config, tokenizer, log)
        table = states.describe_parameters(abstract.whole_params(), states.boxed_params(model))
        log(console.parameter_table(table))
    else:
        start, state, position, meta = resumed
        state = beginning.completed(state, abstract, config, meta)
        best, began = Best(config, meta.get('best')), meta.get('initial')
    facts['initial'] = began
    tokens_per_step = config.batch_size * (lengths.tokens + lengths.encoder_tokens)
    log(
        f'{num_params:,} parameters{f", {num_frozen:,} of them frozen" if num_frozen else ""} · '
        f'{facts["devices"]} · mesh {facts["mesh"]} · '
        f'{model.config.compute_dtype} · steps of {tokens_per_step:,} tokens'
    )
    for note in train_data.notes:
        log(note)
    if start >= config.num_steps or best.exhausted:
        early = f', since {best}' if best.exhausted else ''
        log(f'{workdir} is finished: {start} of {config.num_steps} steps are done{early}.', style='green')
        return 0
    if main:
        experiment.save(config, workdir / 'config.json')
        tokenizer.save(workdir / 'tokenizer')

    # ---- Loop ------------------------------------------------------------------------------------------
    tracker = tracking.Tracker(workdir, config, step=start, facts=facts) if main else None
    train_step = jax.jit(
        make_train_step(model, objective, config, optimizer, make_schedule(config)),
        donate_argnums=0,
        compiler_options=compiler.options(mesh),
    )
    evaluate = score = None
    if config.eval_every:
        held_out = dataset.held_out(rows, tokenizer)
        evaluate = Evaluator(model, objective, config, mesh, held_out, config.eval_batches)
        score = dataset.scorer(model)
        for note in score.notes if score else ():
            log(note)
    pace = console.Pace(
        step=start,
        num_steps=config.num_steps,
        tokens_per_step=tokens_per_step,
        flops_per_step=config.batch_size
        * objectives.train_flops_per_row(objective, config, model.config, tokenizer, learns.has),
        peak=hardware.peak_flops(model.config.compute_dtype),
    )
    stop = shutdown.Shutdown()

    def report(step: int, metrics) -> None:
        """Reads a step's metrics from the devices, which waits for that step, and passes them on."""
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        progress.finish(step)
        if values.pop('skipped_in_a_row') >= config.max_skipped_steps:
            checkpoints.wait()
            raise UserError(
                f'{config.max_skipped_steps} steps in a row, to step {step}, had a loss or gradient that is'
                f' not finite. Checkpoints before them are intact; a lower optimizer.learning_rate may help.'
            )
        due = step % config.log_every == 0 or step == config.num_steps
        record = {**values, 'tokens_seen': step * tokens_per_step}
        if step == start + 1:  # its time is the compiler's, and says nothing about training
            pace.read(step)
            seconds = time.perf_counter() - STARTED
            log(f'step {step} done {seconds:.1f} s after the start: loss {values["loss"]:.4f}')
        elif due:
            record |= pace.read(step)
            log.progress(pace.line(step, record))
        if due and tracker:
            tracker.log(step, record)

    status = None
    pending = None
    profiling, profiled = False, range(0)
    if config.profile_steps:
        profiled = range(config.profile_steps[0], config.profile_steps[1] + 1)
    stream = batches(config, objective, mesh, train_data, meshes.local_part(position, rows))
    for step in range(start + 1, config.num_steps + 1):
        batch, local_position = next(stream)
        if step in profiled and not profiling:
            jax.profiler.start_trace(str(workdir / 'profile'))
            profiling = True
        progress.begin(step)
        state, metrics = train_step(state, batch)
        if pending:
            report(*pending)  # the previous step's, read while this one runs
        pending = (step, metrics)
        status = stop.status(step)
        if profiling and (status or step + 1 not in profiled):
            jax.block_until_ready(metrics)
            jax.profiler.stop_trace()
            profiling = False
        last = step == config.num_steps
        due = {every: config[every] and (step % config[every] == 0 or last)
               for every in ('eval_every', 'sample_every', 'checkpoint_every')}  # fmt: skip
        if not (any(due.values()) or last or status):
            continue
        report(*pending)
        pending = None
        with pace.pause(), progress.pause():
            params = state.whole_params()
            scores, samples = {}, []
            if evaluate and due['eval_every'] and not status:
                scores = evaluate(params)
                if score:
                    of_task, samples = score(params)
                    scores |= of_task
                log(console.scores_line(step, scores))
                best.see(step, scores)
                last |= best.exhausted
            if due['sample_every'] and not status:
                samples += sampling.sample(model, params, tokenizer, config, step)
            if tracker:
                if samples:
                    run.write_samples(workdir, step, samples)
                    tracker.log_samples(step, samples)
                if scores:
                    tracker.log(step, scores)
                plot.draw_loss(workdir / 'metrics.jsonl', workdir / 'loss.png')
            if due['checkpoint_every'] or last or status:
                position = meshes.global_array(mesh, local_position, rows, config.batch_size, meshes.ROW_SPEC)
                meta = facts | {'step': step, 'config': config.to_dict(), 'best': best.as_json()}
                checkpoints.save(step, beginning.kept(state, config), position, meta, scores)
        if status or best.exhausted:
            break

    # ---- Finish ----------------------------------------------------------------------------------------
    checkpoints.wait()
    checkpoints.close()
    if tracker:
        tracker.close(status or 0)
    if status:
        log(
            f'stopped by a signal after step {step}, which is saved; the same command continues.',
            style='yellow',
        )
    else:
        early = f', since {best}' if best.exhausted else ''
        log(f'finished {step} steps{early}; see {workdir}/loss.png and {workdir}/samples', style='green')
    log.close()
    return status or 0


if __name__ == '__main__':
    main = ending_together(lambda: train(flags.FLAGS.config, Path(WORKDIR.value)))
    command_line.run(main, __doc__ or '')
