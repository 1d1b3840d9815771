"""Batch files as people and agents write them: prompts that must stay prompts, foreign files by what they are called."""

PROMPTS = (
    # commas and semicolons, as many in each row or not
    "a red fox, snow, golden hour\na blue jay, spring, morning light\na grey wolf, forest, dusk\n",
    "a red fox, in snow\na wolf\nan owl, at night, with a full moon, oil on canvas\n",
    "masterpiece, best quality, 1girl, (red hair:1.3), <lora:style:0.8>\nmasterpiece, best quality, 1boy, (blue hair:1.2)\n",
    "a fox; a dog; a cat in one picture\nthree owls; one of them asleep\n", "3, 2, 1, liftoff\n5, 4, 3, liftoff\n",
    "a fox, 1024x1024\na dog, 1536x1024\n", "a city in the year 2,024\na crowd of 10,000 people\n",
    "a fox,blue\na dog,red\n",
    # colons
    "Scene 1: a fox wakes up\nScene 2: the fox eats\n", "style: watercolor, subject: fox\nstyle: oil, subject: dog\n",
    "a prompt: write here\n",
    # quotation marks, inches
    'a sign that says "Open, come in"\na poster with "Sale, 50% off"\n', '"Hello", says the fox\n"Goodbye", says the owl\n',
    'a 5" nail, rusty\na 27" screen, dark\n', '"A red fox in snow"\n', 'the word "a","b" on a wall\n',
    # brackets, bars, dashes, numbers at the beginning
    "[subject] on a beach\n", "a fox | snow | dusk\na dog | rain | dawn\n", "- a fox\na dog\n", "--ar 16:9 a fox\n",
    "1. a fox\n1. a dog\n", "* star in the sky\na moon\n", "key=value written in sand\n",
    # other languages and long ones, words of headers
    "一只红色的狐狸，雪地，黄昏\n一只蓝色的鸟，春天\n", "ثعلب أحمر، ثلج\n",
    "un renard : dans la neige ; le soir\nun loup : dans la forêt ; la nuit\n",
    "A detailed, cinematic photograph of a fox, standing in snow, with warm light; mood: quiet, palette: blue, orange\n",
    "prompt engineer at a desk\nname tag, macro\n", "text, bold\nnumbers, thin\n", "prompt\n",
)

FOREIGN = {
    "CSV": (
        "prompt,name\na red fox,fox.png\n", "Prompt,Filename,Size\na red fox,fox.png,1024x1024\n",
        '"prompt","name"\n"a red fox, in snow","fox.png"\n', "a red fox, fox.png\na dog, dog.png\n",
        "fox.png,a red fox\ndog.png,a dog\n", "a red fox,1024x1024\na dog,1536x1024\n", "a red fox,2\na dog,3\n",
        "1,a red fox\n2,a dog\n", '"a red fox, in snow",fox\n"a dog, in rain",dog\n', "id,text,style\n1,a fox,ink\n",
        "prompt\na red fox\na dog\n", "sep=,\na,b\n", "a fox,https://x.example/a.png\na dog,https://x.example/b.png\n",
        "prompt , n\na fox , 2\n", 'a 5" nail,nail.png\na 27" screen,screen.png\n'),
    "CSV with semicolons": ("prompt;name\na red fox;fox.png\n", "\ufeffname;prompt\r\nfox;a red fox\r\n",
                            "a fox;snow;ink\na dog;rain;oil\n"),
    "TSV": ("prompt\tname\na red fox\tfox.png\n", "a red fox\tink\na dog\toil\n"),
    "spreadsheet": ('"{""prompt"": ""a fox""}"\n', '"{""prompt"": ""a fox"", ""n"": 2}"\n"{""prompt"": ""a dog""}"\n',
                    '"{ ""prompt"": ""a fox"" }",\n'),
    "YAML": ("- prompt: a red fox\n  name: fox\n- prompt: a dog\n", "prompt: a red fox\nsize: 1024x1024\n",
             "orders:\n- prompt: a fox\n", "---\n- a fox\n", "foxes:\n  - a red fox\n  - a grey fox\n",
             '"prompt": "a fox"\n'),
    "TOML": ('[[orders]]\nprompt = "a fox"\n', 'prompts = ["a fox", "a dog"]\n'),
    "a Markdown table": ("| prompt | name |\n|---|---|\n| a red fox | fox |\n",
                         "prompt | name\n--- | ---\na red fox | fox\n", "# Orders\n\n|a|b|\n|:--|--:|\n|1|2|\n",
                         "| a red fox | fox |\n| a dog | dog |\n"),
    "code block": ("```\na red fox\n```\n", "```json\n[]\n```\nand more\n"),
    "a list in Markdown": ("- a red fox\n- a dog\n", "* a red fox\n* a dog\n", "• a red fox\n"),
    "a numbered list": ("1. a red fox\n2. a dog\n3. a cat\n", "1) a red fox\n2) a dog\n"),
    "quoted texts": ('"a red fox"\n"a dog"\n', '"a red fox",\n"a dog",\n'),
    "HTML": ("<!DOCTYPE html>\n<html></html>\n", '<?xml version="1.0"?>\n<orders/>\n', "<html>\n<body>a fox</body>\n"),
    "a document": ("%PDF-1.7\nabc\n", "{\\rtf1 a fox}\n"),
}
