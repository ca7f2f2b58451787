"""The words that features of a request are counts of: what it is about, and what it asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final


def _words(text: str) -> set[bytes]:
    """The words, and those with an accented first letter also as they stand at the start of a sentence."""
    words = text.split()
    return {word.encode() for word in (*words, *(w[0].upper() + w[1:] for w in words if not w[0].isascii()))}


def _nouns(text: str) -> set[bytes]:
    """The words and their plain plurals."""
    words = _words(text)
    return words | {word + b"s" for word in words} | {word[:-1] + b"ies" for word in words if word.endswith(b"y")}


def _verbs(text: str) -> set[bytes]:
    """The words in their regular forms, with -ise also as -ize."""
    words = _words(text)
    words |= {word[:-3] + b"ize" for word in words if word.endswith(b"ise")}
    stems = {word[:-1] if word.endswith(b"e") else word for word in words}
    return words | {word + b"s" for word in words} | {stem + ending for stem in stems for ending in (b"ed", b"ing")}


TOPICS: Final[Mapping[str, set[bytes]]] = {
    "code": _nouns(
        "python javascript typescript java rust golang kotlin swift haskell sql bash html css regex json yaml api "
        "function class method struct enum const def elif lambda async await import return void printf println "
        "println std iostream null nullptr undefined boolean string int float array list dict tuple hashmap iterator "
        "loop recursion pointer mutex thread threading goroutine semaphore compiler runtime exception traceback "
        "stacktrace segfault bug unittest pytest npm pip cargo git docker kubernetes kubectl linux terminal script "
        "backend frontend endpoint database postgres mysql sqlite redis query schema middleware codebase repository "
        "algorithm refactor localhost http oauth jwt react django flask fastapi numpy pandas tensorflow pytorch "
        "leetcode binary heap parser token concurrency mutexes queries classes indexes asyncio daemon deadlock"
    ),
    "math": _nouns(
        "integral derivative matrix matrices eigenvalue eigenvector determinant polynomial equation inequality "
        "probability variance expectation theorem lemma corollary conjecture proof prime modulo congruence divisible "
        "integer rational irrational vector subspace basis orthogonal topology manifold homomorphism isomorphism "
        "abelian subgroup ring ideal galois field group convergent divergence series sequence limit continuous "
        "differentiable bounded compact metric norm measurable combinatorics permutation combination factorial "
        "binomial logarithm exponent quadratic cubic triangle circle radius perimeter hypotenuse angle percent "
        "percentage ratio average median sum product remainder gcd lcm sine cosine tangent gradient jacobian hessian "
        "laplacian fourier laplace convex stochastic markov bayesian regression estimator arithmetic geometric "
        "bijection injective surjective cardinality countable recurrence asymptotic graph vertex vertices"
    ),
    "science": _nouns(
        "quantum photon electron proton neutron boson fermion hamiltonian lagrangian wavefunction wavelength "
        "frequency momentum torque velocity acceleration kinetic entropy enthalpy thermodynamic adiabatic isothermal "
        "gibbs relativity relativistic spacetime gravitational electromagnetic capacitor inductor impedance "
        "semiconductor resistor voltage magnetic dipole spin orbital degeneracy perturbation symmetry gauge "
        "renormalization superconducting plasma laser diffraction interference refraction spectroscopy spectrum "
        "isotope radioactive nucleus fission fusion molecule molecular atom ion ionic covalent oxidation reduction "
        "redox catalyst reagent stoichiometry titration equilibrium solubility polymer hydrocarbon benzene alkene "
        "alkane ketone aldehyde ester amine carboxylic aromatic electrophilic nucleophilic chirality enantiomer "
        "stereochemistry chiral allylic aryl alkyl nucleophile electrophile palladium carbonate hydroxide chloride "
        "sulfate nitrate catalysis catalytic synthesis nmr chromatography acid ph buffer molar mole enzyme protein "
        "peptide amino ribosome mrna rna dna genome gene allele genotype phenotype transcription translation "
        "plasmid crispr mitosis meiosis chromosome mitochondria chloroplast photosynthesis glycolysis atp membrane "
        "receptor ligand kinase phosphorylation eukaryotic prokaryotic bacteria phage species evolution "
        "phylogenetic ecosystem taxonomy "
        "homeostasis neuron synapse axon astronomy galaxy stellar neutrino redshift cosmology planet orbit tectonic "
        "mineral sediment viscosity reynolds turbulence stress strain modulus"
    ),
    "medicine": _nouns(
        "patient diagnosis symptom syndrome chronic acute lesion tumor tumour carcinoma malignant benign biopsy "
        "hypertension diabetes insulin glucose myocardial infarction cardiac renal hepatic pulmonary respiratory "
        "anemia sepsis antibiotic antibody antigen immune vaccine pathogen infection inflammation fever edema "
        "hemorrhage thrombosis stroke seizure dosage dose pharmacology contraindication etiology pathology prognosis "
        "therapy clinical serum platelet lymphocyte artery vein ventricle aorta nerve muscle gland thyroid "
        "cortisol hormone estrogen surgery anesthesia radiograph mri ct ecg pediatric psychiatric schizophrenia"
    ),
    "law": _nouns(
        "plaintiff defendant statute jurisdiction tort liability negligence contract clause breach damages estoppel "
        "appeal appellate court constitutional amendment felony misdemeanor prosecution testimony hearsay evidence "
        "precedent injunction indemnity warranty fiduciary trustee easement copyright patent infringement compliance "
        "gdpr litigation arbitration lease landlord tenant equity depreciation amortization audit revenue "
        "elasticity monetary fiscal inflation marginal oligopoly utility hedging arbitrage"
    ),
    "english": _words("the of and to is in a for that with this on are be it as an or what how you i my me by"),
}
"""What a text is about. Ordinary words of a field, written down from general knowledge and from no benchmark;
short exam questions are full of them and look simple otherwise (LiteLLM PR #39226)."""

INSTRUCTIONS: Final[Mapping[str, set[bytes]]] = {
    "hard": _verbs("prove disprove derive formalise reconcile deduce axiomatise parallelise deobfuscate")
    | _nouns("theorem lemma counterexample invariant deadlock concurrency asymptotic induction contradiction")
    | _nouns("proof rigor race_condition root_cause trade_off edge_case worst_case architecture tradeoff")
    | _words("rigorously rigorous formally proven subject_to if_and_only_if demuestra beweise démontre prouve"),
    "work": _verbs("debug diagnose refactor optimise implement solve calculate compute analyse evaluate justify plan")
    | _verbs("design schedule simulate estimate investigate critique compare predict determine reproduce migrate")
    | _words("debugging planning planned solving why strategy diagnosing step_by_step itinerary allocate prioritise")
    | _words("prioritize analyze analyzing fix fixing troubleshoot code program implementieren calcule berechne résous")
    | _nouns("calculation how_long how_far how_fast"),
    "explain": _verbs("explain describe discuss elaborate illustrate")
    | _words("difference differences erkläre")
    | _words("how_can how_could how_does how_did how_would how_should how_to"),
    "ask": _words("what who whom whose when where which how is are does do did can qué quién was wer wann qui quand"),
    "translate": _verbs("translate")
    | _words("translation traduce traduire traduis traduisez übersetze traduza")
    | _words("how_do_you_say"),
    "summarise": _verbs("summarise condense outline") | _words("summary tldr tl_dr recap resume résume zusammenfassen"),
    "extract": _verbs("extract parse list identify convert reformat") | _words("find_all pull_out fields csv"),
    "classify": _verbs("classify categorise label tag") | _words("sentiment spam category categories toxic"),
    "rewrite": _verbs("rewrite rephrase paraphrase proofread shorten polish") | _words("grammar spelling tone reword"),
    "write": _verbs("draft compose brainstorm")
    | _words("write story poem essay blog letter email tweet slogan haiku")
    | _words("écris écrire schreibe escribe scrivi escreva"),
    "chat": _words("hi hello hey thanks thank bye goodbye morning evening ok okay cool great hola bonjour hallo ciao"),
    "constraint": _words("must exactly only without unless except each every cannot never least most within between")
    | _words("before after constraint constraints requirement requirements budget deadline maximise minimise maximize")
    | _words("minimize satisfy satisfies satisfying ensure both neither should avoid respectively"),
    "brief": _words("brief briefly short concise concisely one_word single yes_or_no only_the just_the"),
    "lengthy": _words("detailed detail comprehensive thorough thoroughly report chapter guide tutorial lengthy"),
    "unit": _nouns("word sentence paragraph"),
}
"""What is asked. An underscore joins the words of a phrase."""
