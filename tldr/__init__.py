"""Learning to summarize from human feedback, reproduced: data, SFT, reward model, PPO, evaluation.

Importing this package is fast: it imports neither torch nor transformers. A layer imports only from
its own level and the levels above it in this list (`tests/test_frame.py`):

    records, errors, strict_json, settings    records between stages, errors, shared settings
    measures, mathematics, inputs, queries    estimators; functions on tensors; loaded data; encoded queries
    toy, models, sources                      the toy world; networks, decoding; fetching and filtering data
    train                                     the training loop: batches, schedule, checkpoint, resume
    stages                                    data, pretrain, sft, labels, reward, ppo, best_of_n, sample, ...
    study                                     a study file, expanded into runs and executed
    plan, doctor, bench                       cost before a study; diagnosis after it; speed on this device
    cli                                       the command line
"""

__version__ = "0.1.0"
