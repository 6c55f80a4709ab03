"""The doctor: which stage of a study is at fault, by what its runs left behind.

fault     the results are not what they are taken for: mend it and run the stage again (exit code 1)
warning   it may be honest, and often is not: look before you report
note      true of the run and no mistake: tell it with the result

Every threshold, with its reason, is in `tldr.doctor.limits`; a check that lacks its files says nothing.

=========  ==================  =========================================================================
at fault   check               what healthy runs have
=========  ==================  =========================================================================
any        failed              an end, and parents that were not made anew since
any        tokenizer           the tokenizer of every run they read
any        windows             the query and response windows of every run they read
any        unreadable          files that can be read
trained    pad_eos             a pad that is not EOS, both the same to model and tokenizer
trained    finite              no NaN or infinity in the log
trained    gradients           gradients that are not 0, and not all at the limit
trained    learning_rate       the learning rate that was set
trained    diverged            a loss that ends no higher than it began
data       leakage             no post in two sets that may share none (of labels too)
labels     repeated_labels     no worker's answer twice
labels     prompts             the data's very text of every labelled post
sft        reference_window    references that fit into the response window
sft        ngram_floor         a loss on valid1 below a unigram and a bigram model's
reward     chance              an accuracy on valid1 above one half, with its interval
reward     length_rule         an accuracy on valid1 not below that of a rule by length
reward     random_init         an accuracy on valid1 above that before training (asked for: --models)
reward     reference_mean      references that average 0 after the shift
reward     length_correlation  scores that are no function of length
ppo        first_ratio         ratio 1 and KL 0 on the first minibatch of a rollout
ppo        sampler_gap         a sampler that is the policy, to the precision of bf16
ppo        kl_sign             a KL that is not negative
ppo        kl_estimators       episodes that give the logged KL again (k1), and a k3 that agrees
ppo        clip_share          few tokens clipped
ppo        value_network       an explained variance that rises, and ends above 0
ppo        entropy             entropy left at the end
ppo        score_falls         a score that does not fall
ppo        rollout_ends        episodes that end before the window does
ppo        overoptimised       no reward that rises against SFT while gold or judges fall
sft, ppo   eos_rate            samples that end by themselves
sft, ppo   length_at_cap       samples shorter than the window
sft, ppo   repeats             samples that do not repeat their trigrams
sft, ppo   same_text           different samples for different posts
=========  ==================  =========================================================================
"""
