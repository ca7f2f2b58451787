"""How people rated well-known models in blind comparisons, as recalled: Chatbot Arena's scale, rounded.

Points of its overall text board (https://arxiv.org/abs/2403.04132), where 100 more win 64 % of comparisons; boards of
different years are laid on one scale by models that stand on both, so that a number is good to 20 points or so.
What people prefer is not what passes an exam or a test suite: a regressor like price and size, with its own error.
No outcome of the training data went into it. A model that is missing here has no rating, and is judged by the rest.

Patterns are searched as those of `routers.facts_table`; the first that is found counts.
"""

from __future__ import annotations

from typing import Final

_OPENAI: Final = (
    ("gpt 5 (?:[12] )?(?:codex )?mini", 1365), ("gpt 5 (?:1 )?nano", 1310), ("gpt 5 2", 1440), ("gpt 5 1", 1440),
    ("gpt 5 chat", 1410), ("gpt 5(?! \\d\\b)", 1420), ("gpt oss 120", 1340), ("gpt oss 20", 1305),
    ("gpt 4 1 nano", 1285), ("gpt 4 1 mini", 1340), ("gpt 4 1(?! \\d)\\b", 1370), ("gpt 4 5", 1400),
    ("chatgpt 4 o|gpt 4 o latest", 1330), ("gpt 4 o mini", 1270), ("gpt 4 o", 1280), ("gpt 4 turbo", 1256),
    ("gpt 4 1106", 1250), ("gpt 4 0125", 1245), ("gpt 4 0314", 1186), ("gpt 4(?! \\d\\b)", 1165),
    ("gpt 3 5|gpt 35", 1106), ("davinci", 1000), ("\\bo 1 mini", 1300), ("\\bo 1 preview", 1335), ("\\bo 1\\b", 1350),
    ("\\bo 3 mini", 1310), ("\\bo 3\\b", 1405), ("\\bo 4 mini", 1350),
)  # fmt: skip

_ANTHROPIC: Final = (
    ("opus 4 [56]|4 [56] opus", 1460), ("opus 4(?! [7-9]\\b)|claude 4 opus", 1410),
    ("sonnet 4 [56]|4 [56] sonnet", 1440), ("sonnet 4\\b(?! [7-9]\\b)|claude 4 sonnet", 1385),
    ("haiku 4|4 5 haiku", 1390), ("3 7 sonnet|sonnet 3 7|claude 37", 1340),
    ("(?:3 5|35) sonnet (?:v 2|2024 ?10(?: ?\\d\\d)?)|sonnet 2024 ?10(?: ?\\d\\d)?", 1310),
    ("(?:3 5|35) sonnet|sonnet (?:3 5|35)|claude 35\\b", 1280), ("3 5 haiku|haiku 3 5", 1250), ("3 opus", 1247),
    ("3 sonnet", 1201), ("3 haiku", 1179), ("claude instant", 1111), ("claude (?:v )?2", 1120),
    ("claude (?:v )?1", 1140),
)  # fmt: skip

_GOOGLE: Final = (
    ("gemini 3 (?:1 )?pro", 1490), ("gemini 3 flash(?! lite)", 1460), ("gemini 2 5 pro", 1445),
    ("gemini 2 5 flash lite", 1365),
    ("gemini 2 5 flash", 1400), ("gemini 2 0 flash lite", 1330), ("gemini 2 0 pro", 1370),
    ("gemini 2 (?:0 )?flash", 1345), ("gemini (?:1 5 flash|flash 1 5) 8 b", 1212),
    ("gemini 1 5 flash (?:002|exp)", 1265), ("gemini (?:1 5 flash|flash 1 5)", 1227),
    ("gemini 1 5 pro (?:002|exp|08)", 1300), ("gemini (?:1 5 pro|pro 1 5)", 1260), ("gemini (?:1 0 )?ultra", 1180),
    ("gemini (?:1 0 )?pro(?! latest)", 1120), ("palm 2|text bison|chat bison", 1004), ("gemma 3 27", 1340),
    ("gemma 3 12", 1320), ("gemma 3 4", 1270), ("gemma 2 27", 1220), ("gemma 2 9", 1190), ("gemma 2 2 b", 1140),
    ("gemma 7", 1040), ("gemma 2 b", 990),
)  # fmt: skip

_META: Final = (
    ("llama 4 maverick", 1315), ("llama 4 scout", 1295), ("llama 3 3 nemotron super", 1320),
    ("llama 3 1 nemotron 70", 1270), ("llama 3 1 nemotron 51", 1212), ("llama 3 1 nemotron ultra", 1345),
    ("nemotron 4 340", 1209), ("llama 3 3 70", 1257), ("llama 3 2 90", 1240), ("llama 3 2 11", 1170),
    ("llama 3 2 3", 1103), ("llama 3 2 1", 1054), ("llama 3 (?:1 )?405", 1267), ("llama 3 1 70", 1248),
    ("llama 3 1 8", 1175), ("athene 70", 1250), ("llama 3 70", 1206), ("llama 3 8", 1152), ("llama 2 70", 1093),
    ("llama 2 13", 1063), ("llama 2 7", 1037), ("code ?llama (?:instruct )?70", 1042),
    ("code ?llama (?:instruct )?34", 1043), ("vicuna 33", 1091), ("vicuna 13", 1042), ("vicuna 7", 1005),
    ("wizardlm 70", 1106), ("wizardlm 13", 1058), ("tulu 2", 1099), ("alpaca", 900), ("\\bllama 13", 800),
)  # fmt: skip

_MISTRAL: Final = (
    ("mistral large (?:3|2512|latest)", 1415), ("mistral large (?:2|24(?:07|11))\\b", 1250),
    ("mistral large(?! (?:[4-9]|26\\d\\d))", 1157),
    ("mistral medium (?:3|25\\d\\d|latest)", 1385), ("mistral medium(?! (?:[4-9]|26\\d\\d))", 1148),
    ("mistral small (?:3 2|2506|latest)", 1350),
    ("mistral small (?:3|25\\d\\d|24 b)", 1260),
    ("mixtral 8 x 22", 1148), ("mixtral", 1114), ("ministral 8", 1183), ("magistral", 1330),
    ("mistral 7 b instruct v 0 [23]", 1072), ("mistral 7 b (?:instruct|chat)", 1008), ("zephyr 7", 1053),
    ("openhermes", 1075),
)  # fmt: skip

_ASIA: Final = (
    ("deepseek (?:chat )?v 3 [1-9]", 1415), ("deepseek (?:chat )?v 3 0324", 1390), ("deepseek r 1 0528(?! qwen)", 1415),
    ("deepseek r 1(?! distill)|deepseek reasoner", 1395), ("deepseek v 3|deepseek chat", 1355),
    ("deepseek v 2 5", 1258), ("deepseek coder v 2|deepseek v 2 coder", 1190), ("deepseek v 2", 1220),
    ("deepseek llm 67", 1077), ("qwen 3 max", 1430), ("qwen 3 coder(?! (?:30|flash|next))", 1385),
    ("qwen 3 235.*2507", 1420), ("qwen 3 235", 1375), ("qwen 3 next", 1400), ("qwen 3 32", 1345),
    ("qwen 3 30.*2507", 1380), ("qwen 3 30", 1330), ("qwq", 1335), ("qwen plus", 1310), ("qwen (?:2 5 )?max", 1340),
    ("qwen 2 5 coder 32", 1217), ("qwen 2 5 72", 1257), ("qwen 2 72", 1187), ("qwen 1 5 110", 1161),
    ("qwen 1 5 72", 1147), ("qwen 1 5 32", 1125), ("qwen 1 5 14", 1109), ("qwen 1 5 7", 1070), ("qwen 1 5 4", 988),
    ("qwen 14", 1035), ("kimi k 2", 1420), ("glm 4 [67](?! (?:v\\b|flash))", 1425), ("glm 4 5 air", 1370),
    ("glm 4 5(?! (?:v\\b|flash))", 1410),
    ("glm 4 plus", 1274), ("minimax m 2", 1350), ("minimax m 1", 1370), ("yi lightning", 1287), ("yi large", 1212),
    ("yi 1 5 34", 1157), ("yi 34", 1111), ("internlm 2 5 20", 1149),
    ("hunyuan turbos", 1370), ("hunyuan large", 1260), ("longcat flash", 1400), ("chatglm", 920),
)  # fmt: skip

_OTHERS: Final = (
    ("grok 4 (?:1 )?fast", 1420), ("grok 4 1", 1460), ("grok 4", 1420), ("grok 3 mini", 1360), ("grok 3", 1405),
    ("grok 2 mini", 1266), ("grok 2", 1288), ("command a\\b", 1350), ("command r 7", 1180), ("command r plus", 1190),
    ("command r", 1149), ("jamba (?:1 5 )?large", 1221), ("jamba (?:1 5 )?mini", 1176), ("phi 4(?! mini)", 1205),
    ("phi 3 (?:5 )?medium", 1123), ("phi 3 (?:5 )?small", 1102), ("phi 3 5 mini", 1080), ("phi 3", 1066),
    ("nova pro", 1245), ("nova lite", 1217), ("nova micro", 1198), ("dbrx", 1103), ("arctic", 1090),
    ("reka core", 1199), ("reka flash", 1148), ("granite 3 (?:[01] )?8", 1093),
    ("granite 3 (?:[01] )?2", 1075), ("olmo 2? ?7", 1015),
    ("falcon 180", 1034), ("solar 10", 1062), ("starling", 1100),
    ("openchat", 1077), ("aya expanse 32", 1209), ("aya expanse 8", 1180), ("aya 23 35", 1152),
    ("dolly", 822), ("mpt 30", 1045), ("mpt 7", 928),
)  # fmt: skip

RATINGS: Final[tuple[tuple[str, int], ...]] = (*_OPENAI, *_ANTHROPIC, *_GOOGLE, *_META, *_MISTRAL, *_ASIA, *_OTHERS)
